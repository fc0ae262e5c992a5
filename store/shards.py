"""A strict index of an image shard: what WebDataset would read, or an error, never less.

WebDataset's own iterator ends silently at a truncated or damaged tar and merges keys that contain dots; this one
checks the byte count, every header's checksum and the end-of-archive blocks, and refuses what is ambiguous.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from store.errors import ShardError
from store.text import first_few

BLOCK = 512
IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
LABEL_EXTENSION = "cls"
NO_LABEL = -1
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MAX_LABEL_BYTES = 32
MAX_NAME_BYTES = 1 << 16
PAX_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard: where its image lies in the tar and what the dataset calls it."""

    key: str
    offset: int  # of the image's first byte in the tar
    length: int  # bytes of the image
    label: int  # from the `.cls` member, -1 where there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """A shard that was read to its end and found whole."""

    path: Path
    name: str
    size: int  # bytes
    mtime_ns: int
    sha256: str | None  # of the whole tar; None when it was indexed without hashing
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file in a tar."""

    name: str
    offset: int
    size: int
    data: bytes | None  # only of small label members


def shard_name(path: Path) -> str:
    """The name of the shard and of its label group.

    Raises:
        ShardError: not `*.tar`, or a name that cannot be a group's.
    """
    name = path.name.removesuffix(".tar")
    if name == path.name:
        raise ShardError(f"{path}: a shard is an uncompressed tar named *.tar")
    if not GROUP_NAME.fullmatch(name) or name == "zarr.json":
        raise ShardError(f"{path}: the name must match {GROUP_NAME.pattern}; rename the shard")
    return name


def index_shard(path: Path, *, hashed: bool = False) -> ShardIndex:
    """Read all headers of a shard and, when `hashed`, every byte for its sha256.

    Raises:
        ShardError: missing, unreadable, compressed, damaged, truncated or ambiguous; the message says which.
    """
    name = shard_name(path)
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            _refuse_compressed(path, file)
            tar = _TarReader(file, hashlib.sha256() if hashed else None)
            samples = tuple(_samples(_members(tar)))
    except _DamagedError as error:
        raise ShardError(f"{path}: {error}") from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not samples:
        raise ShardError(f"{path}: holds no samples")
    return ShardIndex(
        path=path,
        name=name,
        size=before.st_size,
        mtime_ns=before.st_mtime_ns,
        sha256=tar.hash.hexdigest() if tar.hash else None,
        samples=samples,
    )


def check_unchanged(index: ShardIndex) -> None:
    """Raise ShardError if the file was replaced or touched since it was indexed."""
    try:
        now = index.path.stat()
    except OSError as error:
        raise ShardError(f"{index.path}: vanished while it was being read") from error
    if (now.st_size, now.st_mtime_ns) != (index.size, index.mtime_ns):
        raise ShardError(f"{index.path}: changed while it was being read; run again once it is complete")


def image_digest(data: bytes) -> int:
    """BLAKE2b-64 of an image's bytes, as a little-endian integer."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_file(path: Path) -> str:
    """Hex sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _DamagedError(Exception):
    """What is wrong with a shard; the caller adds its name."""


class _TarReader:
    """Exact reads from a tar, counting and hashing every byte that passes."""

    def __init__(self, file: BinaryIO, digest: "hashlib._Hash | None") -> None:
        self.file, self.hash, self.position = file, digest, 0
        self.size = os.fstat(file.fileno()).st_size

    def read(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise _DamagedError(f"ends at byte {self.position + len(data)}, in the middle of a member: truncated")
        self.position += count
        if self.hash:
            self.hash.update(data)
        return data

    def skip(self, count: int) -> None:
        if self.position + count > self.size:
            raise _DamagedError(f"ends at byte {self.size}, in the middle of a member: truncated")
        if not self.hash:
            self.position = self.file.seek(self.position + count)
            return
        while count:
            count -= len(self.read(min(count, 1 << 20)))


def _refuse_compressed(path: Path, file: BinaryIO) -> None:
    start = file.read(8)
    file.seek(0)
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise ShardError(f"{path}: compressed with {kind}; decompress it, since images are read by byte range")


def _members(tar: _TarReader) -> Iterator[Member]:
    """The regular files of a tar, up to its end-of-archive blocks."""
    override: dict[str, str] = {}  # what a pax or GNU header says of the next member
    while (header := _next_header(tar)) is not None:
        if header.type in (tarfile.XGLTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            extra = _extended_header(header, tar)
            override |= {} if header.type == tarfile.XGLTYPE else extra
            continue
        name, size = override.get("path", header.name), _member_size(header, override)
        override = {}
        if header.type == tarfile.DIRTYPE:
            continue
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise _DamagedError(f"member {name!r} is not a regular file; a shard holds files only")
        offset, padding = tar.position, -size % BLOCK
        is_label = _split_name(name)[1] == LABEL_EXTENSION
        if is_label and size > MAX_LABEL_BYTES:
            raise _DamagedError(f"member {name!r} holds {size} bytes, expected an integer class id")
        data = tar.read(size) if is_label else None
        tar.skip(padding if is_label else size + padding)
        yield Member(name, offset, size, data)
    if override:
        raise _DamagedError("ends after an extended header: truncated")


def _next_header(tar: _TarReader) -> tarfile.TarInfo | None:
    """The next header, or None at a proper end of the archive."""
    at = tar.position
    if at == tar.size:
        raise _DamagedError(f"ends at byte {at} without end-of-archive blocks: truncated, or still being written")
    block = tar.read(BLOCK)
    if not any(block):
        _check_end(tar)
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except UnicodeDecodeError as error:
        raise _DamagedError(f"the member name at byte {at} is not UTF-8") from error
    except tarfile.HeaderError as error:
        what = "not a tar archive" if at == 0 else f"damaged tar header at byte {at}"
        raise _DamagedError(f"{what} ({error})") from error


def _check_end(tar: _TarReader) -> None:
    """After one block of zeros: at least one more, and nothing but zeros to the end of the file."""
    if tar.size - tar.position < BLOCK:
        raise _DamagedError("ends within its end-of-archive blocks: truncated")
    while tar.position < tar.size:
        at = tar.position
        if any(tar.read(min(1 << 16, tar.size - at))):
            raise _DamagedError(f"data after the end of the archive, near byte {at}: a damaged header or joined tars")


def _extended_header(header: tarfile.TarInfo, tar: _TarReader) -> dict[str, str]:
    """The path and size that a pax header or GNU long name announces for the next member."""
    if not 0 < header.size <= MAX_NAME_BYTES:
        raise _DamagedError(f"extended header of {header.size} bytes near byte {tar.position}")
    data = tar.read(header.size)
    tar.skip(-header.size % BLOCK)
    try:
        if header.type == tarfile.GNUTYPE_LONGNAME:
            found = {"path": data.rstrip(b"\0").decode()}
        else:
            found = {name: value for name, value in _pax_records(data) if name in ("path", "size")}
    except UnicodeDecodeError as error:
        raise _DamagedError(f"the member name near byte {tar.position} is not UTF-8") from error
    if "\0" in found.get("path", ""):
        raise _DamagedError(f"the member name near byte {tar.position} holds a zero byte")
    return found


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records `length key=value newline`, the length counting itself."""
    while data:
        match = PAX_RECORD.match(data)
        length = int(match[1]) if match else 0
        if not match or not match.end() < length <= len(data) or data[length - 1] != ord("\n"):
            raise _DamagedError("damaged pax header")
        yield match[2].decode(), data[match.end() : length - 1].decode()
        data = data[length:]


def _member_size(header: tarfile.TarInfo, override: dict[str, str]) -> int:
    text = override.get("size", str(header.size))
    # A negative size would send the reader backwards for ever.
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _DamagedError(f"member {header.name!r} claims a size of {text[:20]}")
    return int(text)


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's key and extension: split at the first dot of the base name.

    >>> _split_name("a.b/n01_7.JPG")
    ('a.b/n01_7', 'jpg')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _samples(members: Iterable[Member]) -> Iterator[Sample]:
    """Adjacent members that share a key, each checked to be one sample."""
    seen: set[str] = set()
    group: dict[str, Member] = {}
    current = ""
    for member in members:
        key, extension = _split_name(member.name)
        if not key or key.endswith("/"):
            raise _DamagedError(f"member {member.name!r} has no key before its first dot")
        if key != current:
            if group:
                yield _sample(current, group)
            if key in seen:
                raise _DamagedError(f"two samples with the key {key!r}; keys must be unique")
            seen.add(key)
            current, group = key, {}
        if extension in group:
            raise _DamagedError(f"two members {member.name!r}: two samples with the key {key!r}")
        group[extension] = member
    if group:
        yield _sample(current, group)


def _sample(key: str, group: dict[str, Member]) -> Sample:
    images = [member for extension, member in group.items() if extension in IMAGE_EXTENSIONS]
    if len(images) != 1:
        members = first_few([member.name for member in group.values()])
        raise _DamagedError(
            f"sample {key!r} has {len(images) or 'no'} image members, expected one "
            f"({', '.join(sorted(IMAGE_EXTENSIONS))}); it holds {members}. A key ends at the first dot"
        )
    label = group.get(LABEL_EXTENSION)
    return Sample(key, images[0].offset, images[0].size, NO_LABEL if label is None else _label(label))


def _label(member: Member) -> int:
    text = (member.data or b"").decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _DamagedError(f"member {member.name!r} holds {text!r}, expected an integer class id")
    return int(text)
