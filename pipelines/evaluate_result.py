"""What `relabel-train evaluate` found, as text and as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.candidate import Candidate
from store.text import printable
from trainer.evaluate import accuracy_of
from trainer.scoring import Tally


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """A finished evaluation."""

    checkpoint: Path
    candidate: Candidate
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
