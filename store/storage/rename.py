"""Renames that Python's library lacks, by the system call `renameat2`: an exchange, and one that never replaces.

ext4, XFS, Btrfs, tmpfs and others know both. NFS and many disks of FUSE know neither; they raise `UnsupportedError`.
"""

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
# EPERM: of sandboxes that do not know the call.
UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


class UnsupportedError(OSError):
    """The system or the disk has no such rename."""


def exchange(path: Path, folder: int, name: str) -> None:
    """Exchange two entries in one step, so that there is no moment without either.

    Args:
        path: the one.
        folder: an open folder on the same disk.
        name: the other, in that folder.

    Raises:
        UnsupportedError: the disk cannot.
        FileNotFoundError: one of them is missing.
        OSError: the disk refused.
    """
    _renameat2(path, folder, name, EXCHANGE)


def rename_new(path: Path, folder: int, name: str) -> None:
    """Rename a file into an open folder, unless there is an entry of the name.

    Raises:
        UnsupportedError: the disk cannot.
        FileExistsError: there is an entry of the name.
        OSError: the disk refused.
    """
    _renameat2(path, folder, name, NOREPLACE)


def _renameat2(path: Path, folder: int, name: str, flags: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # none before glibc 2.28
    number = errno.ENOSYS
    if call is not None:
        if call(AT_FDCWD, os.fsencode(path), folder, os.fsencode(name), ctypes.c_uint(flags)) == 0:
            return
        number = ctypes.get_errno()
    kind = UnsupportedError if number in UNSUPPORTED else OSError
    raise kind(number, os.strerror(number), os.fspath(path))
