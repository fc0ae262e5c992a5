"""Checkpoints: the complete state of a run in one file, written atomically.

`step-00001234.pt` is written after so many updates, and the last few are kept; `best.pt` is the best epoch's.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from store.archives import saved_problem
from store.errors import RunFolderError
from store.files import partial_file, write_atomically
from store.format.schema import MAX_CLASSES

BEST = "best.pt"
STEP = re.compile(r"step-(\d{8,12})\.pt")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """The state after some updates; it needs no generator's state, since every update reseeds."""

    model: dict[str, Any]
    ema: dict[str, Any] | None  # the moving average of the model's state; None with ema_decay=0
    optimiser: dict[str, Any]
    scheduler: dict[str, Any]
    epoch: int  # finished epochs, evaluation included
    samples_seen: int  # in the unfinished epoch
    loss_sum: float  # over the unfinished epoch's steps
    top1: float | None  # of the last finished epoch, 0 to 1; None without validation shards
    best_top1: float | None  # of all epochs so far
    num_classes: int
    settings: dict[str, Any]  # as `settings_to_json` gives them


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write or replace a checkpoint.

    Raises:
        RunFolderError: writing failed; an existing checkpoint stays unchanged.
    """
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    try:
        with write_atomically(file) as handle:
            torch.save(values, handle)
    except RuntimeError as error:  # of torch's zip writer, where a write fails
        raise RunFolderError(f"{file}: cannot be written: the disk is full, or refuses files of that size") from error


def save_step(folder: Path, checkpoint: Checkpoint, *, updates: int, keep: int) -> Path:
    """Write the checkpoint after so many updates, delete all but the last `keep`, and return the new file.

    Raises:
        RunFolderError: writing failed; older checkpoints stay unchanged.
    """
    file = folder / f"step-{updates:08d}.pt"
    save_checkpoint(file, checkpoint)
    for old in [path for path in step_checkpoints(folder) if path != file][: 1 - keep or None]:
        old.unlink(missing_ok=True)
    return file


def step_checkpoints(folder: Path) -> list[Path]:
    """The `step-*.pt` of a run folder, oldest first."""
    found = {int(match[1]): file for file in folder.iterdir() if (match := STEP.fullmatch(file.name))}
    return [found[updates] for updates in sorted(found)]


def was_saving(folder: Path) -> bool:
    """Whether the run was killed while it wrote a checkpoint."""
    return partial_file(folder / BEST).exists() or any(folder.glob(partial_file(folder / "step-*.pt").name))


def load_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint to the CPU, without executing code from it.

    Raises:
        RunFolderError: absent, damaged, or not a checkpoint of this project.
    """
    if not file.is_file():
        raise RunFolderError(f"{file}: there is no checkpoint")
    try:
        problem = saved_problem(file, zip_only=True)
        values = None if problem else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises exceptions of any type for hostile bytes
        problem = type(error).__name__
    if problem:
        raise RunFolderError(
            f"{file}: damaged, or not a checkpoint ({problem}); "
            "restore it or take another; a run resumes from an older one once this one is moved away"
        )
    found = values if isinstance(values, dict) else {}
    wrong = {name for name, holds in CHECKS.items() if not holds(found.get(name))} | (found.keys() ^ CHECKS.keys())
    if wrong:
        names = ", ".join(sorted(map(str, wrong)))
        raise RunFolderError(f"{file}: not a checkpoint of this release; wrong, missing or unknown: {names}")
    return Checkpoint(**found)


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_fraction(value: object) -> bool:
    return value is None or (isinstance(value, float) and 0 <= value <= 1)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


CHECKS: dict[str, Callable[[object], bool]] = {
    "model": _is_dict, "optimiser": _is_dict, "scheduler": _is_dict, "settings": _is_dict,
    "ema": lambda value: value is None or isinstance(value, dict),
    "top1": _is_fraction, "best_top1": _is_fraction,
    "epoch": _is_count, "samples_seen": _is_count,
    "loss_sum": lambda value: isinstance(value, float) and math.isfinite(value),
    "num_classes": lambda value: type(value) is int and 0 < value <= MAX_CLASSES,
}  # fmt: skip


@dataclass(kw_only=True, slots=True)
class TrainState:
    """The progress of a run, counted from 0; a checkpoint holds the same."""

    epoch: int = 0  # finished epochs, evaluation included
    step: int = 0  # finished steps of the unfinished epoch
    loss_sum: float = 0.0  # over these steps
    top1: float | None = None  # of the last finished epoch, 0 to 1; None without validation shards
    best_top1: float | None = None  # of all epochs so far

    def end_epoch(self, top1: float | None) -> bool:
        """Finish an epoch with its accuracy; returns whether it is the best so far."""
        is_best = top1 is not None and (self.best_top1 is None or top1 > self.best_top1)
        self.epoch, self.step, self.loss_sum, self.top1 = self.epoch + 1, 0, 0.0, top1
        self.best_top1 = top1 if is_best else self.best_top1
        return is_best
