"""Ranges of shards' bytes, never more than a shard has: lengths and places may come from hostile files.

Many are asked for at once, so that a slow disk or a server is waited for once and not for each of them.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from store.shards.remote import RemoteShard, Shard

REQUESTS = 16  # to servers at the same time, of each process


class Range(NamedTuple):
    """`size` bytes of a shard from `start` on."""

    shard: Shard
    start: int
    size: int


def read_range(path: Path, start: int, count: int) -> bytes:
    """`count` bytes from `start` on; fewer or none where the file does not hold so many there.

    Raises:
        OSError: the file cannot be read.
    """
    return next(_read_files([Range(path, start, count)]))


def read_ranges(ranges: Sequence[Range]) -> Iterator[bytes]:
    """What each range holds, in order; an OSError comes in the turn of the range that cannot be read."""
    files = _read_files([wanted for wanted in ranges if not isinstance(wanted.shard, RemoteShard)])
    objects = _read_objects([wanted for wanted in ranges if isinstance(wanted.shard, RemoteShard)])
    for wanted in ranges:
        yield next(objects if isinstance(wanted.shard, RemoteShard) else files)


def _read_files(ranges: Sequence[Range]) -> Iterator[bytes]:
    opened = [_open(wanted) for wanted in ranges]
    try:
        for (_, start, size), handle in zip(ranges, opened, strict=True):
            if isinstance(handle, OSError):
                raise handle
            held = os.fstat(handle).st_size - start
            yield os.pread(handle, min(size, held), start) if start >= 0 and held > 0 else b""
    finally:
        for handle in opened:
            if isinstance(handle, int):
                os.close(handle)


def _open(wanted: Range) -> int | OSError:
    """A handle of the file, which the kernel has been told to fetch the range of."""
    try:
        handle = os.open(str(wanted.shard), os.O_RDONLY)
    except OSError as error:
        return error
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError, OverflowError):  # of a range that cannot be
            os.posix_fadvise(handle, wanted.start, wanted.size, os.POSIX_FADV_WILLNEED)
    return handle


def _read_objects(ranges: Sequence[Range]) -> Iterator[bytes]:
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
        yield from threads.map(_read_object, ranges)


def _read_object(wanted: Range) -> bytes:
    assert isinstance(wanted.shard, RemoteShard)
    return wanted.shard.read_range(wanted.start, wanted.size)
