"""One evaluation, by this process alone or by all that torchrun has started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipelines.candidate import Candidate, Named, load_candidate
from pipelines.evaluate_progress import EvaluateProgress
from pipelines.evaluate_result import Evaluation
from pipelines.options import read_class_names
from store.errors import SettingsError
from store.patterns import expand_shards
from store.shards import ShardIndex
from trainer.evaluate import open_val, score
from trainer.ranks import Ranks, joined_ranks
from trainer.reallabels import RealLabels, check_real, read_real


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
    candidate: Candidate
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
    candidate = load_candidate(job.checkpoint, job.named, job.chosen)
    if names and len(names) != candidate.num_classes:
        raise SettingsError(f"{job.class_names}: {len(names):,} names for {candidate.num_classes:,} classes")
    val = open_val(shards, candidate.num_classes)
    if real:
        check_real(val, candidate.num_classes)
    return _Ready(candidate, val, real, names)
