"""What a process runs out of: open files, memory, shared memory. Each becomes one line that says what to do."""

import errno
import os
import resource
import sys

from store.foreign import NO_MEMORY, SHARED_MEMORY_FULL, TOO_MANY_FILES, says

MOST_FILES = 65_536  # some programs go through all numbers below the limit, which may be a billion
OF_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # no fault of the file that was to be opened


def allow_open_files() -> None:
    """Raise the number of files that this process and those it starts may have open, as far as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if _open_files_allowed() < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def expect_open_files(count: int) -> None:
    """Raise OSError unless this process may open so many files more."""
    if len(os.listdir("/dev/fd")) + count > _open_files_allowed():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _open_files_allowed() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def exhausted(error: BaseException) -> str | None:
    """What an error says has run out, as a message that ends with what else the user could do; None for other errors.

    >>> exhausted(MemoryError()), exhausted(ValueError("no"))
    ('out of memory; ', None)
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE) or says(error, TOO_MANY_FILES):
        allowed = f"{_open_files_allowed():,}"
        return f"too many open files, of which a process may have {allowed} here; raise the limit (ulimit -n), or "
    if says(error, SHARED_MEMORY_FULL):
        return "/dev/shm is full, the shared memory for batches; enlarge it (docker run --shm-size=8g), or "
    if number == errno.ENOMEM or isinstance(error, MemoryError) or says(error, NO_MEMORY):
        return "out of memory; "
    return None
