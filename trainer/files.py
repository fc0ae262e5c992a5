"""Files of a run folder that are there whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from store.errors import RunFolderError


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside, wait until it is on the disk, and put it in place of the old one.

    Raises:
        RunFolderError: the disk refused; the old file is as it was.
    """
    # One name, so that the next write replaces what a killed one left. In the same folder, for the rename.
    aside = file.with_name(f".{file.name}.partial")
    try:
        with aside.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(file)
        _sync_folder(file.parent)
    # torch.save reports a full disk as a RuntimeError of its zip writer.
    except (OSError, RuntimeError) as error:
        raise RunFolderError(f"{file}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
