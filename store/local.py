"""A store on a local disk: groups are built aside, synced, and renamed into place.

Attempts lie in `<store>.partial/`, beside the store, so that a killed writer leaves nothing a reader could take for
labels. A running writer holds a lock on its attempt.
"""

import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from store.errors import GroupExistsError, StoreWriteError
from store.parse import parse_attributes
from store.place import GROUP_FILE, A, B, Leftover, is_group_name
from store.schema import COMMIT_ATTRIBUTE

REPLACED = ".replaced"


class LocalPlace:
    """A folder; see `store.place.Place`."""

    min_age = 0.0  # a running writer holds a lock

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def at(self, path: str) -> str:
        """The full path of an object."""
        return str(self.folder / path)

    def read(self, path: str) -> bytes:
        """A whole file."""
        return (self.folder / path).read_bytes()

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return (self.folder / path).stat().st_size

    def folders(self) -> list[str]:
        """Names of the folders that may be groups, sorted."""
        with os.scandir(self.folder) as entries:
            return sorted(entry.name for entry in entries if is_group_name(entry.name) and entry.is_dir())

    def errors(self, path: str) -> AbstractContextManager[None]:
        """A disk's errors are OSErrors already."""
        return nullcontext()

    def array(self, path: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        """The Zarr array at a path."""
        return zarr.open_array(LocalStore(self.folder / path, read_only=True), mode="r", zarr_format=3)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """One after the other: a disk does not make anyone wait."""
        return map(function, items)

    def is_occupied(self) -> bool:
        """Whether there is a folder that is not empty, or a file."""
        return self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))

    def create_root(self, data: bytes) -> None:
        """Write the root aside and link it into place, which fails if another writer came first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._attempt("root") as attempt:
            _write_synced(attempt / GROUP_FILE, data)
            with suppress(FileExistsError):  # the other's identity is compared like any store's
                os.link(attempt / GROUP_FILE, self.folder / GROUP_FILE)
            _sync_folder(self.folder)

    def publish(
        self, name: str, objects: Mapping[str, bytes], record: Callable[[str], bytes], *, overwrite: bool
    ) -> None:
        """Build the group in an attempt, the record last, and rename it; of two writers one wins."""
        group = self.folder / name
        if group.exists() and not group.is_dir():
            raise StoreWriteError(f"{group}: a file where the label group should be; move it away and run again")
        with self._attempt(name) as attempt:
            for path, data in objects.items():
                (attempt / path).parent.mkdir(parents=True, exist_ok=True)
                _write_synced(attempt / path, data)
            for folder, _, _ in os.walk(attempt, topdown=False):
                _sync_folder(Path(folder))
            _write_synced(attempt / GROUP_FILE, record(""))
            _sync_folder(attempt)
            _move_into_place(attempt, group, overwrite=overwrite)

    def set_aside(self) -> str:
        """Rename the store, beside itself."""
        real = self.folder.resolve()
        aside = real.with_name(f"{real.name}.replaced-{secrets.token_hex(4)}")
        real.rename(aside)
        _sync_folder(real.parent)
        return str(aside)

    def leftovers(self) -> Iterator[Leftover]:
        """Attempts whose writer is gone."""
        if not (partial := self._partial()).is_dir():
            return
        for entry in sorted(partial.iterdir()):
            writing = entry.with_name(entry.name.removesuffix(REPLACED))
            if _is_locked(writing):
                continue
            group = writing.name.rpartition(".")[0]
            is_lost = entry != writing and not (self.folder / group).exists()
            yield Leftover(
                path=str(entry), size=_total_size(entry), age=_age(entry), only_copy_of=group if is_lost else None
            )

    def clean(self, leftover: Leftover) -> None:
        """Delete an attempt, or put a group back; then remove the folder of attempts if it is empty."""
        if leftover.only_copy_of is None:
            shutil.rmtree(leftover.path)
        else:
            Path(leftover.path).rename(self.folder / leftover.only_copy_of)
            _sync_folder(self.folder)
        _remove_if_empty(self._partial())

    def _partial(self) -> Path:
        # Beside the store itself and not beside a link to it: renames must stay on one disk.
        real = self.folder.resolve()
        return real.with_name(real.name + ".partial")

    @contextmanager
    def _attempt(self, name: str) -> Iterator[Path]:
        """A new, locked folder to build in; what is left of it in the end is removed."""
        attempt = self._partial() / f"{name}.{secrets.token_hex(8)}"
        while not attempt.exists():
            attempt.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another writer has just removed the empty parent
                attempt.mkdir()
        with _locked(attempt):
            try:
                yield attempt
            finally:
                shutil.rmtree(attempt, ignore_errors=True)
                _remove_if_empty(attempt.parent)


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _move_into_place(attempt: Path, group: Path, *, overwrite: bool) -> None:
    """Rename the attempt to its group; a group that another writer put there first stays.

    A folder without a commit record, such as an interrupted copy leaves, is no group and makes way.
    """
    if group.exists() and (overwrite or not _is_committed(group)):
        old = attempt.with_name(attempt.name + REPLACED)
        group.rename(old)
        try:
            attempt.rename(group)
        except OSError:
            old.rename(group)
            raise
        _sync_folder(group.parent)
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        attempt.rename(group)
    except OSError as error:
        if group.exists():
            raise GroupExistsError(f"{group}: already there; use --overwrite to replace it") from error
        raise
    _sync_folder(group.parent)


def _is_committed(group: Path) -> bool:
    file = group / GROUP_FILE
    return file.is_file() and COMMIT_ATTRIBUTE in parse_attributes(file.read_bytes(), str(file))


@contextmanager
def _locked(attempt: Path) -> Iterator[None]:
    """Hold a lock on the attempt; it ends with this process, whatever ends that."""
    handle = os.open(attempt, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks cannot lock; there the age alone protects an attempt
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_locked(attempt: Path) -> bool:
    try:
        handle = os.open(attempt, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk that cannot lock
        return False
    finally:
        os.close(handle)
    return False


def _tree(entry: Path) -> Iterator[os.stat_result]:
    yield entry.stat()
    for path in entry.rglob("*"):
        with suppress(FileNotFoundError):  # its writer has just finished
            yield path.stat()


def _total_size(entry: Path) -> int:
    return sum(info.st_size for info in _tree(entry) if stat.S_ISREG(info.st_mode))


def _age(entry: Path) -> float:
    return time.time() - max(info.st_mtime for info in _tree(entry))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # another writer is at work in it, or it is gone
        folder.rmdir()
