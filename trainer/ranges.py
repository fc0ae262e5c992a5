"""A range of a file's bytes, never more than the file has: lengths and places may come from hostile files."""

import os
from pathlib import Path


def read_range(path: Path, start: int, count: int) -> bytes:
    """`count` bytes from `start` on; fewer or none where the file does not hold so many there.

    Raises:
        OSError: the file cannot be read.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        held = os.fstat(handle).st_size - start
        return os.pread(handle, min(count, held), start) if start >= 0 and held > 0 else b""
    finally:
        os.close(handle)
