"""The last step of writing a group on a local disk: its folder takes its place in the store.

Where the disk can exchange two folders in one step, readers see the old group or the new one at any moment. Elsewhere a
group that is replaced is first renamed to `<attempt>.replaced`. A writer that is killed then leaves the store without
the group; the next writer or `relabel-store gc` puts it back.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.errors import GroupExistsError, RelabelError, StoreWriteError
from store.format.parse import parse_attributes
from store.format.schema import COMMIT_ATTRIBUTE, GROUP_FILE
from store.storage.rename import UnsupportedError, exchange

REPLACED = ".replaced"
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


def move_into_place(attempt: Path, group: Path, store: int, *, overwrite: bool) -> None:
    """Rename an attempt to its group, unless another writer has committed it.

    A folder without a commit record, such as an interrupted copy, is not a group: it becomes a leftover.

    Args:
        attempt: the complete group.
        group: its path in the store.
        store: the store's folder, open: `group` may be in another store by now.
        overwrite: replace a group.

    Raises:
        GroupExistsError: the group is there already.
        StoreWriteError: written, but not synced.
        OSError: the disk refused; the group is as it was.
    """
    try:
        is_new = not overwrite and _rename(attempt, group, store)
        replaced = None if is_new else _replace(attempt, group, store, overwrite=overwrite)
    except OSError as error:
        if not isinstance(error, RelabelError):
            error.filename, error.filename2 = str(group), None  # not the folder of the attempt
        raise
    try:
        os.fsync(store)
    except OSError as error:
        raise StoreWriteError(f"{group}: written, but the disk does not confirm it: {error.strerror}") from error
    if replaced is not None and overwrite:
        remove(replaced)
    elif replaced == attempt:
        os.rename(attempt, _aside(attempt))


def is_committed(group: Path) -> bool:
    """Whether a folder is a group, by its commit record; DamagedStoreError where the record cannot be read."""
    file = group / GROUP_FILE
    return file.is_file() and COMMIT_ATTRIBUTE in parse_attributes(file.read_bytes(), str(file))


def remove(entry: Path) -> None:
    """Remove a folder, or a link to one."""
    if entry.is_symlink():
        entry.unlink(missing_ok=True)
    else:
        shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """A folder that stays the same one when it is renamed meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def suppress_occupied() -> Iterator[None]:
    """Do nothing where a rename finds something in its way."""
    try:
        yield
    except OSError as error:
        if error.errno not in OCCUPIED:
            raise


def _rename(attempt: Path, group: Path, store: int) -> bool:
    """Rename the attempt to the group; false where there is something."""
    with suppress_occupied():
        os.rename(attempt, group.name, dst_dir_fd=store)
        return True
    return False


def _replace(attempt: Path, group: Path, store: int, *, overwrite: bool) -> Path | None:
    """Put the attempt in the group's place; returns where that which was there is now."""
    if not overwrite and is_committed(group):
        raise _exists(group)
    while True:
        try:
            exchange(attempt, store, group.name)
        except FileNotFoundError:
            if _rename(attempt, group, store):
                return None
        except UnsupportedError:
            return _replace_by_two_renames(attempt, group, store, overwrite=overwrite)
        else:
            break
    if not overwrite and is_committed(attempt):  # committed between the look and the exchange
        exchange(attempt, store, group.name)
        raise _exists(group)
    return attempt


def _replace_by_two_renames(attempt: Path, group: Path, store: int, *, overwrite: bool) -> Path:
    old = _aside(attempt)
    with suppress(FileNotFoundError):
        os.rename(group.name, old, src_dir_fd=store)
    try:
        if not overwrite and is_committed(old):  # committed between the look and the rename
            raise _exists(group)
        os.rename(attempt, group.name, dst_dir_fd=store)
    except OSError:
        with suppress_occupied(), suppress(FileNotFoundError):
            os.rename(old, group.name, dst_dir_fd=store)
        raise
    return old


def _aside(attempt: Path) -> Path:
    return attempt.with_name(attempt.name + REPLACED)


def _exists(group: Path) -> GroupExistsError:
    return GroupExistsError(f"{group}: already there; use --overwrite to replace it")
