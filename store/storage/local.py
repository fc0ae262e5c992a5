"""Storage backend for local folders: groups are built in another folder, synced, and renamed into the store.

Attempts are built in `<store>.partial/`, beside the store, so that readers never see what a killed writer leaves. A
running writer holds a lock on its attempt. The store's folder is held open from the look at its root to the rename, so
that a group never gets into another store that was put in its place.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from store.errors import DamagedStoreError, StoreWriteError
from store.files import flock, lock_state, locked, remove_if_empty, size_and_age, sync_folder, write_synced
from store.format.schema import GROUP_FILE, GROUP_NAME, MAX_JSON_BYTES, is_group_name
from store.storage.base import A, B, Leftover, NewGroup, ObjectVersion
from store.storage.commit import REPLACED, is_committed, move_into_place, open_folder, remove, suppress_occupied
from store.storage.rename import UnsupportedError, rename_new

LEASE = ".lease"  # ends the name of the file that a writer locks while it works on a group
ATTEMPT = re.compile(rf"(?!zarr\.json\.){GROUP_NAME.pattern}\.[0-9a-f]{{16}}({re.escape(REPLACED)})?")
UNLOCKABLE_AGE = 3600.0  # seconds
# Of a disk without hard links: FAT and exFAT, and some of FUSE.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalBackend:
    """A folder; see `store.storage.base.StorageBackend`."""

    min_age = 0.0  # a running writer holds a lock

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def at(self, path: str) -> str:
        """The full path of an object."""
        return str(self.folder / path)

    def read(self, path: str, limit: int) -> tuple[bytes, ObjectVersion]:
        """All bytes of a regular file, or none if it has more than `limit`."""
        with self._opened(path) as file:
            data = file.read() if os.fstat(file.fileno()).st_size <= limit else b""
            return data, _version(os.fstat(file.fileno()))

    def read_part(self, path: str, start: int, stop: int) -> tuple[bytes, ObjectVersion]:
        """Bytes of a regular file."""
        with self._opened(path) as file:
            file.seek(start)
            data = file.read(stop - start)
            return data, _version(os.fstat(file.fileno()))

    def version(self, path: str) -> ObjectVersion:
        """Size, inode and time of change of a file."""
        return _version((self.folder / path).stat())

    asks_are_cheap = True

    @contextmanager
    def _opened(self, path: str) -> Iterator[BinaryIO]:
        """A regular file; a pipe would be waited for without end."""
        handle = os.open(self.folder / path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", self.at(path))
            yield file

    def folders(self) -> list[str]:
        """Names of the folders that may be groups, sorted."""
        with os.scandir(self.folder) as entries:
            return sorted(entry.name for entry in entries if is_group_name(entry.name) and _may_be_folder(entry))

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Apply a function to all items, one after the other: a local disk is fast enough."""
        return map(function, items)

    def is_occupied(self) -> bool:
        """Whether there is a folder that is not empty, or a file."""
        return self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))

    def create_root(self, data: bytes) -> None:
        """Write the root in an attempt and link it into the store, which fails if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._attempt("root") as attempt, open_folder(self.folder) as store:
            write_synced(attempt / GROUP_FILE, data)
            with suppress(FileExistsError):  # the caller compares the other writer's schema
                try:
                    os.link(attempt / GROUP_FILE, GROUP_FILE, dst_dir_fd=store)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    self._rename_root(attempt, store)
            os.fsync(store)

    def _rename_root(self, attempt: Path, store: int) -> None:
        """Rename the root into the store on a disk without hard links, such as one of FAT or exFAT."""
        try:
            rename_new(attempt / GROUP_FILE, store, GROUP_FILE)
        except UnsupportedError as error:
            raise StoreWriteError(
                f"{self.folder}: this disk has neither hard links nor a rename that never replaces a file, and one of "
                "them is needed to create a store; create it on another disk and copy it here"
            ) from error

    def publish(self, name: str, group: NewGroup, *, overwrite: bool) -> None:
        """Build the group in an attempt, its record last, and rename it; of two writers, one wins."""
        place = self.folder / name
        if os.path.lexists(place) and not place.is_dir():
            problem = "a link to nothing" if place.is_symlink() and not place.exists() else "a file"
            raise StoreWriteError(f"{place}: {problem} where the label group should be; move it away and run again")
        with self._attempt(name) as attempt:
            for path, data in group.objects.items():
                (attempt / path).parent.mkdir(parents=True, exist_ok=True)
                write_synced(attempt / path, data)
            for folder, _, _ in os.walk(attempt, topdown=False):
                sync_folder(Path(folder))
            write_synced(attempt / GROUP_FILE, group.record(""))
            sync_folder(attempt)
            with open_folder(self.folder) as store:
                group.check_root(_read_in(store, GROUP_FILE))
                move_into_place(attempt, place, store, overwrite=overwrite)

    @contextmanager
    def lease(self, name: str) -> Iterator[bool]:
        """Lock a file beside the attempts; true without a lock where the disk has none, as some network disks."""
        file = self._partial() / f"{name}{LEASE}"
        handle = _lock_file(file)
        if handle is None:
            yield False
            return
        try:
            yield True
        finally:
            file.unlink(missing_ok=True)
            os.close(handle)
            remove_if_empty(file.parent)

    def set_aside(self) -> str:
        """Rename the store within its folder."""
        real = self.folder.resolve()
        aside = real.with_name(f"{real.name}.replaced-{secrets.token_hex(4)}")
        real.rename(aside)
        sync_folder(real.parent)
        return str(aside)

    def interrupted(self) -> list[Leftover]:
        """Groups whose writer was killed between the two renames of a disk that cannot exchange folders."""
        return [leftover for leftover in self.leftovers(lambda _: None) if leftover.only_copy_of is not None]

    def leftovers(self, used_prefix: Callable[[str], str | None]) -> Iterator[Leftover]:
        """Attempts whose writer is gone, and groups that it was killed while replacing."""
        del used_prefix  # attempts are beside the store, not under a group
        for entry in self._attempts():
            writing = entry.with_name(entry.name.removesuffix(REPLACED))
            lock = lock_state(writing)
            name = writing.name.rpartition(".")[0]
            is_group = entry != writing and _state(entry) == "committed"
            if is_group and _state(self.folder / name) == "damaged":
                continue  # two copies: only a person can say which one is right
            is_lost = is_group and _state(self.folder / name) == "none"
            with suppress(FileNotFoundError):  # its writer has just finished
                size, age = size_and_age(entry)
                if entry != writing:
                    age = min(age, time.time() - entry.stat().st_ctime)  # of the rename
                # On a disk without locks, writers cannot be seen.
                if lock != "held" and (lock == "free" or age >= UNLOCKABLE_AGE):
                    yield Leftover(path=str(entry), size=size, age=age, only_copy_of=name if is_lost else None)
        for file in self._leases():
            with suppress(FileNotFoundError):
                age = size_and_age(file)[1]
                if (lock := lock_state(file)) == "free" or (lock == "unknown" and age >= UNLOCKABLE_AGE):
                    yield Leftover(path=str(file), size=0, age=age)

    def clean(self, leftover: Leftover) -> None:
        """Delete an attempt or restore a group; then remove the folder of attempts if it is empty."""
        entry = Path(leftover.path)
        with suppress(FileNotFoundError, BlockingIOError), locked(entry, wait=False):
            if entry.name.endswith(LEASE):
                entry.unlink()
            elif leftover.only_copy_of is None:
                shutil.rmtree(entry)
            else:
                self._put_back(entry, leftover.only_copy_of)
        remove_if_empty(self._partial())

    def _put_back(self, entry: Path, name: str) -> None:
        group = self.folder / name
        if _state(group) != "none":  # annotated again meanwhile
            return
        if group.exists():  # an incomplete copy, kept as a leftover of its own
            group.rename(entry.with_name(f"{name}.{secrets.token_hex(8)}"))
        with suppress_occupied():  # another writer has just committed it
            entry.rename(group)
        sync_folder(self.folder)

    def _attempts(self) -> list[Path]:
        """The attempts of writers in the folder of attempts."""
        partial = self._partial()
        if partial.is_symlink() or not partial.is_dir():  # no writer makes a link
            return []
        found = (entry for entry in sorted(partial.iterdir()) if entry.is_dir() and not entry.is_symlink())
        return [entry for entry in found if ATTEMPT.fullmatch(entry.name)]

    def _leases(self) -> list[Path]:
        """The files that writers have locked, or left behind when they were killed."""
        partial = self._partial()
        found = [] if partial.is_symlink() or not partial.is_dir() else sorted(partial.glob(f"*{LEASE}"))
        return [file for file in found if file.is_file() and not file.is_symlink()]

    def _partial(self) -> Path:
        # Beside the store itself and not beside a link to it: renames must stay on one disk.
        real = self.folder.resolve()
        return real.with_name(real.name + ".partial")

    @contextmanager
    def _attempt(self, name: str) -> Iterator[Path]:
        """A new, locked folder to build in; removed at the end."""
        attempt = self._partial() / f"{name}.{secrets.token_hex(8)}"
        with ExitStack() as lock:
            while True:
                # Another writer may have just removed the empty parent, or gc the new folder before it was locked.
                with suppress(FileNotFoundError):
                    attempt.parent.mkdir(exist_ok=True)
                    attempt.mkdir()
                    lock.enter_context(locked(attempt, wait=True))
                    if attempt.exists():
                        break
            try:
                yield attempt
            finally:
                remove(attempt)
                remove_if_empty(attempt.parent)


def _lock_file(file: Path) -> int | None:
    """A handle of a locked file, which is made if there is none; None where another process holds the lock."""
    while True:
        file.parent.mkdir(exist_ok=True)
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # another writer has just removed the empty folder
            continue
        try:
            flock(handle, wait=False)
        except BlockingIOError:
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.lstat()):
                return handle
        os.close(handle)  # its writer has removed it between the two


def _state(folder: Path) -> Literal["none", "committed", "damaged"]:
    """Whether a folder is a group, by its commit record."""
    try:
        return "committed" if is_committed(folder) else "none"
    except (DamagedStoreError, OSError):
        return "damaged"


def _may_be_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir() or (entry.is_symlink() and not os.path.exists(entry))
    except OSError:  # a loop of links; opening it raises the error
        return True


def _version(info: os.stat_result) -> ObjectVersion:
    """A file's version: copying over it changes the time, replacing it the inode."""
    return ObjectVersion(info.st_size, (info.st_dev, info.st_ino, info.st_ctime_ns))


def _read_in(folder: int, name: str) -> bytes:
    """The bytes of a `zarr.json` in an open folder."""
    with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
        return file.read(MAX_JSON_BYTES)
