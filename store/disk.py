"""What is asked of a local disk: files that are there after a power cut, locks, sizes and ages."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal


def write_synced(file: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with file.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that nobody uses any more."""
    with suppress(OSError):  # another writer is at work in it, or it is gone
        folder.rmdir()


@contextmanager
def locked(attempt: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock on the attempt; it ends with this process, whatever ends that. BlockingIOError if not to wait."""
    handle = os.open(attempt, os.O_RDONLY)
    try:
        _flock(handle, wait=wait)
        yield
    finally:
        os.close(handle)


def _flock(handle: int, *, wait: bool) -> bool:
    """Lock, and whether this disk can: some network disks cannot."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def lock_state(attempt: Path) -> Literal["held", "free", "unknown"]:
    """Whether a process of this machine holds the lock; unknown where the disk cannot lock."""
    try:
        handle = os.open(attempt, os.O_RDONLY)
    except FileNotFoundError:
        return "free"
    try:
        return "free" if _flock(handle, wait=False) else "unknown"
    except BlockingIOError:
        return "held"
    finally:
        os.close(handle)


def size_and_age(entry: Path) -> tuple[int, float]:
    """Bytes, and seconds since the newest change."""
    size, newest = 0, entry.stat().st_mtime
    for folder, _, files in os.walk(entry):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            with suppress(FileNotFoundError):
                info = os.lstat(path)
                size, newest = size + info.st_size * stat.S_ISREG(info.st_mode), max(newest, info.st_mtime)
    return size, time.time() - newest
