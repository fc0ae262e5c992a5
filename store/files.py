"""Files that a command writes where its user says: there whole or not at all, and never in place of something else."""

import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from store.errors import RunFolderError, StoreWriteError

ENDING = (signal.SIGTERM, signal.SIGHUP)


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Refuse files that would overwrite one another, a label store, or what is read; before any work is done.

    Args:
        outputs: files that may be there already.
        inputs: files that are read.

    Raises:
        StoreWriteError: names the file and says why.
    """
    taken = {path.resolve() for path in inputs}
    for file in outputs:
        target = file.resolve()
        if target in taken:
            raise StoreWriteError(f"{file}: is an image shard or another output too; give each file a place of its own")
        taken.add(target)
        if file.exists() and not file.is_file():
            raise StoreWriteError(f"{file}: is not a regular file; name one")
        if not target.parent.is_dir():
            raise StoreWriteError(f"{file}: there is no folder {target.parent}; make it first")
        if any((folder / "zarr.json").exists() for folder in target.parents):
            raise StoreWriteError(f"{file}: lies in a label store; choose a place outside of it")


@contextmanager
def written_aside(file: Path) -> Iterator[BinaryIO]:
    """A file to write beside the named one, which it replaces at the end unless there was an error or a signal.

    Raises:
        StoreWriteError: the disk refused; the old file is as it was.
    """
    target = file.resolve()  # a link stays one
    aside = target.with_name(f".{target.name[:100]}.{os.getpid()}.partial")
    try:
        with _ending_on_signals(), aside.open("xb") as handle:
            yield handle
            if target.exists():
                aside.chmod(stat.S_IMODE(target.stat().st_mode))
        aside.replace(target)
    except OSError as error:
        if isinstance(error, StoreWriteError) or (error.filename is not None and Path(error.filename) != aside):
            raise
        raise StoreWriteError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """A signal ends the process by way of its `finally` blocks."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What is asked of a local disk: files that are there after a power cut, locks, sizes and ages.


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


# Files of a run folder that are there whole or not at all.


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
