"""Files of a run folder that are there whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from store.disk import sync_folder
from store.errors import RunFolderError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        RunFolderError: it or one above it is a file, or the disk refused.
    """
    try:
        files = [place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()]
        if not files:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made: {error.strerror or error}") from error
    if files:
        raise RunFolderError(f"{files[0]} is a file, not a folder; choose another, or move it away")


def read_whole(file: Path) -> bytes:
    """A regular file's bytes.

    Raises:
        FileNotFoundError: there is none.
        RunFolderError: a folder or the like in its place, or the disk refused.
    """
    try:
        if file.is_file():
            return file.read_bytes()
        file.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunFolderError(f"{file}: cannot be read: {error.strerror or error}") from error
    raise RunFolderError(f"{file}: not a regular file; choose another folder")


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside, wait until it is on the disk, and put it in place of the old one.

    Raises:
        RunFolderError: the disk refused; the old file is as it was.
    """
    try:
        with aside(file).open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        aside(file).replace(file)
        sync_folder(file.parent)
    # torch.save reports a full disk as a RuntimeError of its zip writer.
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "the disk is full, or refuses files of that size"
        raise RunFolderError(f"{file}: cannot be written: {why}; make room, then try again") from error


def aside(file: Path) -> Path:
    """Where a file is written first; what stays there was cut off by a kill or a full disk."""
    # One name, so that the next write replaces what a killed one left. In the same folder, for the rename.
    return file.with_name(f".{file.name}.partial")
