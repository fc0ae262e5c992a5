"""One evaluation, by this process alone or by all that torchrun has started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from annotator.teacher.weights import fit_state, load_state
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
from trainer.student.model import build_student, pretrained_settings
from trainer.student.trained import build_trained

# What `relabel-train evaluate` evaluates: a student of this project, or any network that timm knows by name.


WEIGHTS = {"model": "weights", "ema": "moving average"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A network by timm's name, whose weights lie in a file from elsewhere."""

    model: str
    model_args: dict[str, Any]
    num_classes: int | None  # None: as many as timm's own weights have


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A network that is ready to be evaluated."""

    model: nn.Module  # on the settings' device
    settings: TrainSettings  # resolved
    num_classes: int
    origin: str  # which weights, after how many epochs


def load_model(checkpoint: Path, named: Named | None, chosen: Mapping[str, Any]) -> LoadedModel:
    """Read a checkpoint: with a name, weights from elsewhere; without, one of this project's.

    Args:
        checkpoint: a safetensors file or what torch.save wrote; nothing in it is executed.
        named: the network that the weights are for.
        chosen: settings of evaluation that replace the network's own.

    Raises:
        RunFolderError: not a checkpoint of this project.
        TeacherError: from elsewhere, and cannot be read or does not fit.
        SettingsError: no such network, or a setting that cannot be.
    """
    if named is not None:
        return _load_named(checkpoint, named, chosen)
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


def _load_named(checkpoint: Path, named: Named, chosen: Mapping[str, Any]) -> LoadedModel:
    settings, num_classes = pretrained_settings(named.model, named.model_args, chosen)
    num_classes = named.num_classes or num_classes
    model = build_student(settings, num_classes)
    fit_state(model, load_state(checkpoint), checkpoint, role=f"{settings.model} with {num_classes:,} classes")
    settings = resolve_device(settings)
    return LoadedModel(
        model=model.to(settings.device).eval(), settings=settings, num_classes=num_classes, origin="given weights"
    )


# What `relabel-train evaluate` found, as text and as JSON.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """A finished evaluation."""

    checkpoint: Path
    candidate: LoadedModel
    shards: int
    tally: Tally
    has_real: bool
    class_names: tuple[str, ...] | None

    def class_rows(self) -> Iterator[tuple[int, str | None, int, int, int]]:
        """Class, name, samples, top-1 hits and top-5 hits of each class that occurs, in their order."""
        for label, (samples, top1_hits, top5_hits) in enumerate(self.tally.per_class_L3.tolist()):
            if samples:
                yield label, self.class_names[label] if self.class_names else None, samples, top1_hits, top5_hits


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, as one JSON object."""
    settings, accuracy = evaluation.candidate.settings, accuracy_of(evaluation.tally)
    real_samples, real_hits = evaluation.tally.real_2.tolist()
    return {
        "checkpoint": str(evaluation.checkpoint),
        "model": settings.model,
        "model_args": settings.model_args,
        "weights": evaluation.candidate.origin,
        "num_classes": evaluation.candidate.num_classes,
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
        "real": {"samples": real_samples, "hits": real_hits, "accuracy": _share(real_hits, real_samples)}
        if evaluation.has_real
        else None,
        "classes": [
            {"class": label, "name": name, "samples": samples, "top1_hits": top1_hits, "top5_hits": top5_hits}
            for label, name, samples, top1_hits, top5_hits in evaluation.class_rows()
        ],
    }


def summary(evaluation: Evaluation) -> str:
    """A few aligned lines."""
    settings, accuracy = evaluation.candidate.settings, accuracy_of(evaluation.tally)
    shards = f"{evaluation.shards:,} shard" + ("s" if evaluation.shards > 1 else "")
    lines = [
        printable(f"{evaluation.checkpoint}: {settings.model}, {evaluation.candidate.origin}"),
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
    """One aligned line for each class that occurs: samples, hits and their share."""
    lines = [f"{'class':>5}  {'samples':>7}  {'top-1':>14}  {'top-5':>14}"]
    for label, name, samples, *both_hits in evaluation.class_rows():
        cells = "".join(f"  {hits:>6,} {hits / samples:>7.1%}" for hits in both_hits)
        lines.append(f"{label:>5}  {samples:>7,}{cells}" + (f"  {printable(name)}" if name else ""))
    return "\n".join(lines)


def _line(what: str, hits: int, samples: int) -> str:
    share = _share(hits, samples)
    return f"{what:<5}  {'-' if share is None else format(share, '.2%'):>7}  {hits:,} of {samples:,}"


def _share(hits: int, samples: int) -> float | None:
    return hits / samples if samples else None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What the command was given."""

    checkpoint: Path
    patterns: Sequence[str]  # of the validation shards
    named: Named | None
    chosen: Mapping[str, Any]  # settings of evaluation that replace the network's own
    batch_size: int  # images at once in each process
    real: Path | None
    class_names: Path | None


def evaluate_checkpoint(job: EvaluateJob) -> Evaluation | None:
    """Evaluate; None on all ranks but the first.

    Raises:
        RelabelError: whatever cannot be used, on the first rank that finds it; PeerError on the others.
    """
    with joined_ranks("cuda" if torch.cuda.is_available() else "cpu") as ranks:
        found = _evaluate(job, ranks)
    return found if ranks.rank == 0 else None


class _Ready(NamedTuple):
    candidate: LoadedModel
    val: tuple[ShardIndex, ...]
    real: RealLabels | None
    class_names: tuple[str, ...] | None


def _evaluate(job: EvaluateJob, ranks: Ranks) -> Evaluation:
    ready = ranks.together(lambda: _prepare(job))
    settings = replace(ready.candidate.settings, batch_size=job.batch_size * ranks.world)
    with EvaluateProgress(silent=ranks.rank > 0) as progress:
        tally = score(ready.candidate.model, ready.val, settings, ranks, real=ready.real, progress=progress)
    assert tally is not None  # nobody tells it to stop
    return Evaluation(
        checkpoint=job.checkpoint,
        candidate=ready.candidate,
        shards=len(ready.val),
        tally=tally,
        has_real=ready.real is not None,
        class_names=ready.class_names,
    )


def _prepare(job: EvaluateJob) -> _Ready:
    """Read and check everything before the first image; what is quick to read comes first."""
    shards = expand_shards(job.patterns)
    real = read_real(job.real) if job.real else None
    names = read_class_names(job.class_names) if job.class_names else None
    candidate = load_model(job.checkpoint, job.named, job.chosen)
    if names and len(names) != candidate.num_classes:
        raise SettingsError(f"{job.class_names}: {len(names):,} names for {candidate.num_classes:,} classes")
    val = open_val(shards, candidate.num_classes)
    if real:
        check_real(val, candidate.num_classes)
    return _Ready(candidate, val, real, names)
