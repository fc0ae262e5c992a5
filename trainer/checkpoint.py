"""Checkpoints: everything a run needs to go on, in one file that is whole or not there."""

import pickle
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from store.errors import RunFolderError
from trainer.files import write_atomically

LAST, BEST = "last.pt", "best.pt"
DAMAGE = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Checkpoint:
    """The state after some whole epochs; no generator's state is needed, since every step is reseeded."""

    model: dict[str, Any]
    optimiser: dict[str, Any]
    scheduler: dict[str, Any]
    epoch: int  # epochs done
    samples_seen: int
    top1: float | None  # of this epoch, 0 to 1; None without validation shards
    best_top1: float | None  # of all epochs so far
    num_classes: int
    settings: dict[str, Any]  # as `settings_to_json` gives them


TYPES: dict[str, tuple[type, ...]] = {
    "model": (dict,), "optimiser": (dict,), "scheduler": (dict,), "settings": (dict,),
    "epoch": (int,), "samples_seen": (int,), "num_classes": (int,),
    "top1": (float, type(None)), "best_top1": (float, type(None)),
}  # fmt: skip


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
    try:
        with zipfile.ZipFile(file) as archive:  # torch.load itself takes flipped bits for weights
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not match")
        values = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunFolderError(f"{file}: there is no checkpoint") from error
    except DAMAGE as error:
        raise RunFolderError(
            f"{file}: damaged, or not a checkpoint ({type(error).__name__}); restore it, or delete it and train again"
        ) from error
    wrong = sorted(name for name, types in TYPES.items() if not isinstance(_get(values, name), types))
    if wrong or not isinstance(values, dict) or values.keys() != TYPES.keys():
        raise RunFolderError(f"{file}: not a checkpoint of this release; wrong or missing: {', '.join(wrong)}")
    return Checkpoint(**values)


def _get(values: object, name: str) -> object:
    return values.get(name, ...) if isinstance(values, dict) else ...
