"""Checkpoints: everything a run needs to go on, in one file that is whole or not there."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from store.errors import RunFolderError
from store.schema import MAX_CLASSES
from trainer.files import write_atomically

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """The state after some whole epochs; no generator's state is needed, since every step is reseeded."""

    model: dict[str, Any]
    optimiser: dict[str, Any]
    scheduler: dict[str, Any]
    epoch: int  # epochs done, 1 or more
    top1: float | None  # of this epoch, 0 to 1; None without validation shards
    best_top1: float | None  # of all epochs so far
    num_classes: int
    settings: dict[str, Any]  # as `settings_to_json` gives them


def save_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Write or replace a checkpoint.

    Raises:
        RunFolderError: the disk refused; an older checkpoint is as it was.
    """
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    write_atomically(file, lambda handle: torch.save(values, handle))


def load_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint to the CPU; nothing in it is executed.

    Raises:
        RunFolderError: absent, damaged, or not a checkpoint of this project.
    """
    if not file.is_file():
        raise RunFolderError(f"{file}: there is no checkpoint")
    try:
        with zipfile.ZipFile(file) as archive:  # torch.load itself takes flipped bits for weights
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not match")
        values = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever hostile bytes make the unpickler raise
        raise RunFolderError(
            f"{file}: damaged, or not a checkpoint ({type(error).__name__}); "
            "restore it, or train again in another folder"
        ) from error
    found = values if isinstance(values, dict) else {}
    wrong = {name for name, holds in CHECKS.items() if not holds(found.get(name))} | (found.keys() ^ CHECKS.keys())
    if wrong:
        names = ", ".join(sorted(map(str, wrong)))
        raise RunFolderError(f"{file}: not a checkpoint of this release; wrong, missing or unknown: {names}")
    return Checkpoint(**found)


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_share(value: object) -> bool:
    return value is None or (isinstance(value, float) and 0 <= value <= 1)


CHECKS: dict[str, Callable[[object], bool]] = {
    "model": _is_dict, "optimiser": _is_dict, "scheduler": _is_dict, "settings": _is_dict,
    "top1": _is_share, "best_top1": _is_share,
    "epoch": lambda value: type(value) is int and value > 0,
    "num_classes": lambda value: type(value) is int and 0 < value <= MAX_CLASSES,
}  # fmt: skip
