"""Read images out of shards by byte range. Image bytes, names and lengths are hostile."""

import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, SupportsInt

from store.errors import ChangedShardError, ShardError
from store.shards.errors import shard_errors
from store.shards.index import IMAGE_EXTENSIONS, Sample, image_digest
from store.shards.remote import RemoteShard, Shard
from store.shards.tar import BLOCK

NAME_BYTES = 100  # of a ustar header's name field
AHEAD = 128  # ranges of files that are requested before they are read
OPEN_FILES = 2 * AHEAD  # of each process, so that no file is opened twice; the usual limit for all is 1,024
REQUESTS = 16  # at the same time, of each process, to servers


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMember:
    """A row's image as its labels record it."""

    row: int
    key: str
    offset: int  # of the image's first byte in the tar
    length: int  # bytes
    digest: int  # BLAKE2b-64 of the image's bytes, little-endian

    @classmethod
    def recorded(cls, row: int, key: str, span: Iterable[SupportsInt], digest: SupportsInt) -> "ImageMember":
        """A row's image from its values in the arrays `keys`, `offsets` and `digests` of a group."""
        offset, length = span
        return cls(row=row, key=key, offset=int(offset), length=int(length), digest=int(digest))


def read_image(path: Path, sample: Sample, *, source: Shard | None = None) -> bytes:
    """The bytes of an image in a local shard that has been indexed.

    Args:
        path: the shard.
        sample: its entry in the shard's index.
        source: the shard that `path` is a copy of, for messages; None for `path` itself.

    Raises:
        ShardError: the shard cannot be read, or ends within the image.
    """
    shard = source or path
    with shard_errors(shard, f"the image of {sample.key!r}"):
        data = next(_read_files([Range(path, sample.offset, sample.length)]))
    if len(data) != sample.length:
        raise ShardError(f"{shard}: ends within the image of {sample.key!r}; run again once the shard is complete")
    return data


def read_images(wanted: Sequence[tuple[Shard, ImageMember]], *, hashed: bool = False) -> Iterator[bytes]:
    """The bytes of annotated images, in order; the ranges of all of them are requested at once.

    The 512 bytes before an image are its tar header, and are read with it. The name in the header must belong to the
    row's key: each sample is joined to its labels by name, not by its offset alone.

    Args:
        wanted: shards, local or remote, and images in them.
        hashed: compare each image with its digest instead.

    Raises:
        ChangedShardError: the shard holds something else at this offset.
        ShardError: the shard cannot be read.
    """
    ranges = (Range(shard, member.offset - BLOCK, BLOCK + member.length) for shard, member in wanted)
    found = read_ranges(list(ranges))
    for shard, member in wanted:
        with shard_errors(shard, f"the image of {member.key!r}"):
            data = next(found)
        yield _checked(shard, member, data[:BLOCK], data[BLOCK:], hashed=hashed)


def _checked(shard: Shard, member: ImageMember, header: bytes, image: bytes, *, hashed: bool) -> bytes:
    """The image, if it is the row's."""
    name = _member_name(header, member.length)
    complete = len(image) == member.length
    if hashed:
        is_right = complete and image_digest(image) == member.digest
    else:
        is_right = complete and name is not None and _belongs(name, header, image, member)
    if is_right:
        return image
    found = "no image of that size" if name is None or not complete else "other bytes" if hashed else repr(name)
    raise ChangedShardError(
        f"{shard}: does not hold the image that was annotated as {member.key!r} (row {member.row}), but {found}; "
        "give the shard that was annotated, or annotate this one (--overwrite with only this shard)"
    )


def _member_name(header: bytes, length: int) -> str | None:
    """The name in a tar header; None if these bytes are no header of a file of this length."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info.name if info.size == length else None


def _belongs(name: str, header: bytes, image: bytes, member: ImageMember) -> bool:
    """Whether a tar member of this name is the image of the row's key."""
    key, _, extension = name.rpartition(".")
    if key == member.key and extension.lower() in IMAGE_EXTENSIONS:
        return True
    # A name that does not fit this header is in an extended header before it; this one holds the first 100 bytes, or
    # "?" for a character that is not ASCII. Then the digest decides.
    shortened = b"\0" not in header[:NAME_BYTES] or not member.key.isascii()
    return shortened and image_digest(image) == member.digest


class Range(NamedTuple):
    """`size` bytes of a shard from `start` on."""

    shard: Shard
    start: int
    size: int


def read_ranges(ranges: Sequence[Range]) -> Iterator[bytes]:
    """The bytes of each range, in order; fewer or none where the shard is shorter.

    Offsets and lengths may come from hostile files, so no more than the shard's own size is ever allocated. Ranges
    are requested long before they are read, so that a slow disk or a server does not delay the caller for each of them.
    However many files there are, `OPEN_FILES` are open at a time.

    Raises:
        OSError: when it is the turn of a range that cannot be read.
    """
    files = _read_files([wanted for wanted in ranges if not isinstance(wanted.shard, RemoteShard)])
    objects = _read_objects([wanted for wanted in ranges if isinstance(wanted.shard, RemoteShard)])
    for wanted in ranges:
        yield next(objects if isinstance(wanted.shard, RemoteShard) else files)


def _read_files(ranges: Sequence[Range]) -> Iterator[bytes]:
    ahead = iter(ranges[1:])
    with _OpenFiles() as files:
        for wanted in islice(ahead, AHEAD):
            files.request(wanted)
        for wanted in ranges:
            yield files.read(wanted)
            for following in islice(ahead, 1):
                files.request(following)


class _OpenFiles:
    """Files that stay open for the ranges that follow, up to a number of them; a context that closes them."""

    def __init__(self) -> None:
        self._handles: OrderedDict[str, int] = OrderedDict()  # the least recently used first

    def __enter__(self) -> "_OpenFiles":
        return self

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._close_oldest()

    def request(self, wanted: Range) -> None:
        """Ask the kernel to fetch a range, which then stays in its cache, also once the file is closed."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError, OverflowError):  # reading will say why; an impossible range
                os.posix_fadvise(self._open(wanted), wanted.start, wanted.size, os.POSIX_FADV_WILLNEED)

    def read(self, wanted: Range) -> bytes:
        """The bytes of a range, fewer or none where the file is shorter.

        Raises:
            OSError: the file cannot be opened or read.
        """
        handle = self._open(wanted)
        held = os.fstat(handle).st_size - wanted.start
        return os.pread(handle, min(wanted.size, held), wanted.start) if wanted.start >= 0 and held > 0 else b""

    def _open(self, wanted: Range) -> int:
        path = str(wanted.shard)
        if path not in self._handles:
            while len(self._handles) >= OPEN_FILES:
                self._close_oldest()
            self._handles[path] = os.open(path, os.O_RDONLY)
        self._handles.move_to_end(path)
        return self._handles[path]

    def _close_oldest(self) -> None:
        os.close(self._handles.popitem(last=False)[1])


def _read_objects(ranges: Sequence[Range]) -> Iterator[bytes]:
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
        yield from threads.map(_read_object, ranges)


def _read_object(wanted: Range) -> bytes:
    assert isinstance(wanted.shard, RemoteShard)
    return wanted.shard.read_range(wanted.start, wanted.size)
