"""Evaluates a checkpoint or a timm network on labelled shards, in one process or all that torchrun has started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from annotator.teacher.weights import fit_weights, load_weights
from pipelines.options import read_class_names
from pipelines.train.progress import EvaluateProgress
from store.errors import RunFolderError, SettingsError
from store.shards.index import ShardIndex
from store.shards.patterns import expand_shards
from store.text import counted, printable
from trainer.distributed import Ranks, joined_ranks
from trainer.evaluation.evaluate import Tally, accuracy_of, open_val, score
from trainer.evaluation.real import RealLabels, check_real, read_real
from trainer.settings import TrainSettings
from trainer.student.checkpoint import load_checkpoint
from trainer.student.device import resolve_device
from trainer.student.model import build_student, check_images, pretrained_settings
from trainer.student.trained import build_trained

WEIGHTS = {"model": "weights", "ema": "moving average"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmModel:
    """A network by timm's name, for weights from elsewhere."""

    model: str
    model_args: dict[str, Any]
    num_classes: int | None  # None: that of timm's weights


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A network with its weights, on its device."""

    model: nn.Module  # on the settings' device
    settings: TrainSettings  # resolved
    num_classes: int
    origin: str  # description of the weights, with the number of epochs


def load_model(checkpoint: Path, timm_model: TimmModel | None, chosen: Mapping[str, Any]) -> LoadedModel:
    """Load weights: for a timm network from elsewhere, otherwise from a checkpoint of this project.

    Args:
        checkpoint: a safetensors file or one written by torch.save; no code from it is executed.
        timm_model: the network that the weights are for; None for a checkpoint of this project.
        chosen: settings of evaluation that replace the network's own.

    Raises:
        RunFolderError: not a checkpoint of this project.
        TeacherError: weights from elsewhere that cannot be read or do not fit the network.
        SettingsError: no such network, or a setting out of range.
    """
    if timm_model is not None:
        return _load_timm_model(checkpoint, timm_model, chosen)
    try:
        content = load_checkpoint(checkpoint)
    except RunFolderError as error:
        if not checkpoint.is_file():
            raise
        raise RunFolderError(f"{error}. A checkpoint from elsewhere needs --model NAME") from error
    trained = build_trained(content, checkpoint, chosen={**chosen, "accumulate": 1})
    return LoadedModel(
        model=trained.model,
        settings=trained.settings,
        num_classes=trained.num_classes,
        origin=f"{WEIGHTS[trained.weights]} after {counted(trained.epoch, 'epoch')}",
    )


def _load_timm_model(checkpoint: Path, timm_model: TimmModel, chosen: Mapping[str, Any]) -> LoadedModel:
    settings, num_classes = pretrained_settings(timm_model.model, timm_model.model_args, chosen)
    num_classes = timm_model.num_classes or num_classes
    model = build_student(settings, num_classes)
    check_images(model, settings, num_classes)
    weights = load_weights(checkpoint)
    fit_weights(model, weights, role=f"{settings.model} with {num_classes:,} classes")
    settings = resolve_device(settings)
    return LoadedModel(
        model=model.to(settings.device).eval(),
        settings=settings,
        num_classes=num_classes,
        origin=f"given weights, {weights.origin}" if weights.origin else "given weights",
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """The result of an evaluation."""

    checkpoint: Path
    loaded: LoadedModel
    shards: int
    tally: Tally
    has_real: bool
    class_names: tuple[str, ...] | None

    def class_rows(self) -> Iterator[tuple[int, str | None, int, int, int]]:
        """Yield class, name, samples, top-1 hits and top-5 hits of each class that occurs, by class id."""
        for label, (samples, top1_hits, top5_hits) in enumerate(self.tally.per_class_L3.tolist()):
            if samples:
                yield label, self.class_names[label] if self.class_names else None, samples, top1_hits, top5_hits


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The result as one JSON object."""
    settings, accuracy = evaluation.loaded.settings, accuracy_of(evaluation.tally)
    real_samples, real_hits = evaluation.tally.real_2.tolist()
    return {
        "checkpoint": str(evaluation.checkpoint),
        "model": settings.model,
        "model_args": settings.model_args,
        "weights": evaluation.loaded.origin,
        "num_classes": evaluation.loaded.num_classes,
        "image_size": settings.val_size,
        "crop_pct": settings.val_crop_pct,
        "interpolation": settings.interpolation,
        "mean": settings.mean,
        "std": settings.std,
        "precision": settings.precision,
        "shards": evaluation.shards,
        "samples": accuracy.samples,
        "top1_hits": accuracy.top1_hits,
        "top5_hits": accuracy.top5_hits,
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "real": {"samples": real_samples, "hits": real_hits, "accuracy": _fraction(real_hits, real_samples)}
        if evaluation.has_real
        else None,
        "classes": [
            {"class": label, "name": name, "samples": samples, "top1_hits": top1_hits, "top5_hits": top5_hits}
            for label, name, samples, top1_hits, top5_hits in evaluation.class_rows()
        ],
    }


def summary(evaluation: Evaluation) -> str:
    """The result as a few aligned lines."""
    settings, accuracy = evaluation.loaded.settings, accuracy_of(evaluation.tally)
    shards = f"{evaluation.shards:,} shard" + ("s" if evaluation.shards > 1 else "")
    lines = [
        printable(f"{evaluation.checkpoint}: {settings.model}, {evaluation.loaded.origin}"),
        f"{accuracy.samples:,} images in {shards}; {settings.val_size} px, crop {settings.val_crop_pct:g}, "
        f"{settings.interpolation}, {settings.precision}",
        _line("top-1", accuracy.top1_hits, accuracy.samples),
        _line("top-5", accuracy.top5_hits, accuracy.samples),
    ]
    if evaluation.has_real:
        samples, hits = evaluation.tally.real_2.tolist()
        lines.append(_line("ReaL", hits, samples) + " that have ReaL labels")
    return "\n".join(lines)


def class_table(evaluation: Evaluation) -> str:
    """A table of the classes that occur: samples, top-1 and top-5 hits and accuracies."""
    lines = [f"{'class':>5}  {'samples':>7}  {'top-1':>14}  {'top-5':>14}"]
    for label, name, samples, *both_hits in evaluation.class_rows():
        cells = "".join(f"  {hits:>6,} {hits / samples:>7.1%}" for hits in both_hits)
        lines.append(f"{label:>5}  {samples:>7,}{cells}" + (f"  {printable(name)}" if name else ""))
    return "\n".join(lines)


def _line(name: str, hits: int, samples: int) -> str:
    accuracy = _fraction(hits, samples)
    return f"{name:<5}  {'-' if accuracy is None else format(accuracy, '.2%'):>7}  {hits:,} of {samples:,}"


def _fraction(hits: int, samples: int) -> float | None:
    return hits / samples if samples else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """The arguments of an evaluation."""

    checkpoint: Path
    patterns: Sequence[str]  # of the validation shards
    timm_model: TimmModel | None  # None for a checkpoint of this project
    chosen: Mapping[str, Any]  # settings of evaluation that replace the network's own
    batch_size: int  # images at once in each process
    real: Path | None
    class_names: Path | None


def evaluate_checkpoint(job: EvaluateJob) -> Evaluation | None:
    """Evaluate; the result on rank 0, None on the others.

    Raises:
        RelabelError: a file, network or setting that cannot be used, on the first rank that finds it.
        PeerError: the same, on the other ranks.
    """
    with joined_ranks("cuda" if torch.cuda.is_available() else "cpu") as ranks:
        found = _evaluate(job, ranks)
    return found if ranks.rank == 0 else None


class _Prepared(NamedTuple):
    loaded: LoadedModel
    val: tuple[ShardIndex, ...]
    real: RealLabels | None
    class_names: tuple[str, ...] | None


def _evaluate(job: EvaluateJob, ranks: Ranks) -> Evaluation:
    prepared = ranks.together(lambda: _prepare(job))
    settings = replace(prepared.loaded.settings, batch_size=job.batch_size * ranks.world)
    with EvaluateProgress(silent=ranks.rank > 0) as progress:
        tally = score(prepared.loaded.model, prepared.val, settings, ranks, real=prepared.real, progress=progress)
    assert tally is not None  # only a `should_stop` ends it early
    return Evaluation(
        checkpoint=job.checkpoint,
        loaded=prepared.loaded,
        shards=len(prepared.val),
        tally=tally,
        has_real=prepared.real is not None,
        class_names=prepared.class_names,
    )


def _prepare(job: EvaluateJob) -> _Prepared:
    """Read and check everything before the first image; the quickest checks come first."""
    shards = expand_shards(job.patterns)
    real = read_real(job.real) if job.real else None
    names = read_class_names(job.class_names) if job.class_names else None
    loaded = load_model(job.checkpoint, job.timm_model, job.chosen)
    if names and len(names) != loaded.num_classes:
        raise SettingsError(f"{job.class_names}: {len(names):,} names for {loaded.num_classes:,} classes")
    val = open_val(shards, loaded.num_classes)
    if real:
        check_real(val, loaded.num_classes)
    return _Prepared(loaded, val, real, names)
