"""Local files and folders: checks of output paths, walks, atomic writing, syncing to disk, locks, sizes and ages."""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from store.errors import FileWriteError, RelabelError, RunFolderError, StoreWriteError
from store.system.signals import Terminated, ended_by_signals

STANDARD = {"stdout": 1, "stderr": 2}
DESCRIPTOR = re.compile(rf"/dev/({'|'.join(STANDARD)})|(?:/dev|/proc/self|/proc/{os.getpid()})/fd/(\d{{1,9}})")
MAX_LINKS = 40  # that Linux follows, too


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Refuse output files that would overwrite one another, an input or a label store; called before any work is done.

    Args:
        outputs: files to write; regular files are replaced, special ones written to.
        inputs: files to read.

    Raises:
        StoreWriteError: an output that cannot be written there; the message says why.
    """
    taken = {_resolved(path) for path in inputs}
    for file in outputs:
        target = _resolved(file)
        if target in taken:
            raise StoreWriteError(f"{file}: is an image shard or another output too; name another file")
        taken.add(target)
        if file.exists() and not (file.is_file() or _is_special(file)):
            raise StoreWriteError(f"{file}: is not a regular file; name one")
        if not target.parent.is_dir():
            raise StoreWriteError(f"{file}: there is no folder {target.parent}; make it first")
        if any((folder / "zarr.json").exists() for folder in target.parents):
            raise StoreWriteError(f"{file}: is inside a label store; choose a folder outside of it")


def _resolved(file: Path) -> Path:
    try:
        return file.resolve()
    except (RuntimeError, OSError) as error:  # Python 3.11 raises RuntimeError
        raise StoreWriteError(f"{file}: is a loop of symbolic links; name another file") from error


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and all folders below it, each with those of its entries that are not walked, sorted.

    These are files, hidden entries, and links to a folder that holds the link. Other links to folders are followed.

    Raises:
        OSError: a folder that cannot be listed.
    """
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        above |= {_identity(folder)}
        inner: list[Path] = []
        others: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                is_walked = not is_hidden(entry.name) and entry.is_dir() and _identity(entry) not in above
                (inner if is_walked else others).append(folder / entry.name)
        yield folder, sorted(others)
        waiting += [(path, above) for path in sorted(inner, reverse=True)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is one that systems and editors add beside a user's own.

    >>> [is_hidden(name) for name in (".ipynb_checkpoints", "._a.jpg", "__MACOSX", "a.jpg")]
    [True, True, True, False]
    """
    return name.startswith(".") or name == "__MACOSX"


def _identity(folder: "Path | os.DirEntry[str]") -> tuple[int, int]:
    info = folder.stat()
    return info.st_dev, info.st_ino


@contextmanager
def open_output(file: Path) -> Iterator[BinaryIO]:
    """Open a file that a command was asked to write: as `write_atomically` does, or directly where it is special.

    Special are the process's own descriptors, such as /dev/stdout, and devices, such as a terminal. Where the shell has
    redirected /dev/stdout to a file, a new file in its place would lose what else is printed. Links are followed.

    Raises:
        FileWriteError: as of `write_atomically`.
    """
    if not _is_special(file):
        with write_atomically(file.resolve()) as handle:
            yield handle
        return
    descriptor = _own_descriptor(file)
    try:
        with open(file if descriptor is None else os.dup(descriptor), "wb") as special:
            yield special
    except OSError as error:
        if isinstance(error, RelabelError) or error.errno == errno.EPIPE or error.filename not in (None, str(file)):
            raise
        raise FileWriteError(f"{file}: cannot be written: {error.strerror or error}") from error


def _is_special(file: Path) -> bool:
    """Whether this is a descriptor or a device, to be written to; not a pipe with a name, which may lack a reader."""
    return _own_descriptor(file) is not None or file.is_char_device()


def _own_descriptor(file: Path) -> int | None:
    """The descriptor of this process that a path names, None if it names none."""
    for _ in range(MAX_LINKS):
        if match := DESCRIPTOR.fullmatch(str(file)):
            return STANDARD[match[1]] if match[1] else int(match[2])
        if not file.is_symlink():
            break
        file = file.parent / file.readlink()
    return None


@contextmanager
def write_atomically(file: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `file`, which replaces it when the block ends without an error.

    Readers see the old file or the new one, never a part. On an error, SIGTERM or SIGHUP the temporary file is removed
    and the old file stays; after SIGKILL the temporary file stays, and the next write replaces it. A symbolic link is
    replaced, not followed.

    Args:
        file: the file to write; an existing one gives the new one its permissions.
        synced: wait until the file is on the disk, so that it survives a power cut.

    Raises:
        FileWriteError: the disk refused, or another process is writing the same file.
    """
    partial = partial_file(file)
    try:
        with ended_by_signals():
            partial.unlink(missing_ok=True)
            with _new_file(partial) as (handle, own):
                yield handle
                handle.flush()
                if synced:
                    os.fsync(handle.fileno())
                if file.is_file():
                    os.fchmod(handle.fileno(), stat.S_IMODE(file.stat().st_mode))
                if not _is_same(own, partial):
                    raise OSError(errno.EBUSY, "another process is writing it too", str(partial))
                partial.replace(file)
            if synced:
                sync_folder(file.parent)
    except OSError as error:
        # Errors of other files, which the block reads, are not about this one.
        own_files = {None, str(partial), str(file), str(file.parent)}
        if isinstance(error, RelabelError) or (error.filename and str(error.filename)) not in own_files:
            raise
        raise FileWriteError(f"{file}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _new_file(partial: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A new file with its identity; it is removed at the end if it still has this name."""
    own: os.stat_result | None = None
    try:
        with partial.open("xb") as handle:
            own = os.fstat(handle.fileno())
            yield handle, own
    except (Terminated, KeyboardInterrupt):
        if own is None:  # the signal came while the file was made
            partial.unlink(missing_ok=True)
        raise
    finally:
        if own is not None and _is_same(own, partial):
            partial.unlink()


def partial_file(file: Path) -> Path:
    """The temporary file of `write_atomically`: in the same folder, for the rename, and always of the same name."""
    return file.with_name(f".{file.name[:100]}.partial")


def _is_same(info: os.stat_result, path: Path) -> bool:
    """Whether the path still names this file."""
    try:
        return os.path.samestat(info, path.lstat())
    except FileNotFoundError:
        return False


def write_synced(file: Path, data: bytes) -> None:
    """Write a new file, unfinished in case of an error, and wait until it is on the disk."""
    with file.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with suppress(OSError):  # another writer uses it, or has removed it
        folder.rmdir()


@contextmanager
def locked(attempt: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock on a folder, released when the process ends in any way; BlockingIOError if held and not to wait."""
    handle = os.open(attempt, os.O_RDONLY)
    try:
        flock(handle, wait=wait)
        yield
    finally:
        os.close(handle)


def flock(handle: int, *, wait: bool) -> bool:
    """Lock a file; false where the disk has no locks, as some network disks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def lock_state(attempt: Path) -> Literal["held", "free", "unknown"]:
    """Whether a process of this machine holds the lock of a folder; unknown where the disk has no locks."""
    try:
        handle = os.open(attempt, os.O_RDONLY)
    except FileNotFoundError:
        return "free"
    try:
        return "free" if flock(handle, wait=False) else "unknown"
    except BlockingIOError:
        return "held"
    finally:
        os.close(handle)


def size_and_age(entry: Path) -> tuple[int, float]:
    """Bytes of all files below a folder, and seconds since the newest change."""
    size, newest = 0, entry.stat().st_mtime
    for folder, _, files in os.walk(entry):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            with suppress(FileNotFoundError):
                info = os.lstat(path)
                size, newest = size + info.st_size * stat.S_ISREG(info.st_mode), max(newest, info.st_mtime)
    return size, time.time() - newest


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing.

    Raises:
        RunFolderError: it or one above it is a file, or the disk refused.
    """
    try:
        files = [path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()]
        if not files:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be made: {error.strerror or error}") from error
    if files:
        raise RunFolderError(f"{files[0]} is a file, not a folder; choose another, or move it away")


def read_whole(file: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileNotFoundError: there is no such file.
        RunFolderError: a folder or a device instead of a file, or the disk refused.
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
