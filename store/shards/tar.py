"""Read the members of an uncompressed tar strictly: all of them, or an error.

tarfile treats any damage as the end of the archive; this reader checks the byte count, every header's checksum and the
end-of-archive blocks.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_NAME_BYTES = 1 << 16
MAX_KEPT_BYTES = 1 << 16
PAX_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file in a tar."""

    name: str
    offset: int
    size: int
    data: bytes | None  # of small members that the caller keeps


class DamagedTarError(Exception):
    """Damage in a tar; the caller adds the name of the tar."""


class TarReader:
    """Read exact numbers of bytes from a tar, and count and hash them."""

    def __init__(self, file: BinaryIO, digest: "hashlib._Hash | None") -> None:
        self.file, self.hash, self.position = file, digest, 0
        self.size = os.fstat(file.fileno()).st_size

    def read(self, count: int) -> bytes:
        """Exactly this many bytes."""
        data = self.file.read(count)
        if len(data) != count:
            raise DamagedTarError(f"ends at byte {self.position + len(data)}, in the middle of a member: truncated")
        self.position += count
        if self.hash:
            self.hash.update(data)
        return data

    def skip(self, count: int) -> None:
        """Skip this many bytes; they are read only if they are hashed."""
        if self.position + count > self.size:
            raise DamagedTarError(f"ends at byte {self.size}, in the middle of a member: truncated")
        if not self.hash:
            self.position = self.file.seek(self.position + count)
            return
        while count:
            count -= len(self.read(min(count, 1 << 20)))


def members(tar: TarReader, kept: Callable[[str], bool]) -> Iterator[Member]:
    """The regular files of a tar, up to its end-of-archive blocks.

    Args:
        tar: at its start.
        kept: whether to keep the bytes of a member of this name, if it is small.

    Raises:
        DamagedTarError: truncated, damaged, or with members that are not regular files.
    """
    override: dict[str, str] = {}  # from a pax or GNU header, for the next member
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
            raise DamagedTarError(f"member {name!r} is not a regular file; a shard holds files only")
        offset, padding = tar.position, -size % BLOCK
        is_read = size <= MAX_KEPT_BYTES and kept(name)
        data = tar.read(size) if is_read else None
        tar.skip(padding if is_read else size + padding)
        yield Member(name, offset, size, data)
    if override:
        raise DamagedTarError("ends after an extended header: truncated")


def _next_header(tar: TarReader) -> tarfile.TarInfo | None:
    """The next header, or None at a proper end of the archive."""
    at = tar.position
    if at == tar.size:
        raise DamagedTarError(f"ends at byte {at} without end-of-archive blocks: truncated, or still being written")
    block = tar.read(BLOCK)
    if not any(block):
        _check_end(tar)
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except UnicodeDecodeError as error:
        raise DamagedTarError(f"the member name at byte {at} is not UTF-8") from error
    except tarfile.HeaderError as error:
        problem = "not a tar archive" if at == 0 else f"damaged tar header at byte {at}"
        raise DamagedTarError(f"{problem} ({error})") from error


def _check_end(tar: TarReader) -> None:
    """After one block of zeros: at least one more, and nothing but zeros to the end of the file."""
    if tar.size - tar.position < BLOCK:
        raise DamagedTarError("ends within its end-of-archive blocks: truncated")
    while tar.position < tar.size:
        at = tar.position
        block = tar.read(min(1 << 16, tar.size - at))
        if block.count(0) < len(block):
            raise DamagedTarError(f"data after the end of the archive, near byte {at}: a damaged header or joined tars")


def _extended_header(header: tarfile.TarInfo, tar: TarReader) -> dict[str, str]:
    """The path and size of the next member, from a pax header or GNU long name."""
    if not 0 < header.size <= MAX_NAME_BYTES:
        raise DamagedTarError(f"extended header of {header.size} bytes near byte {tar.position}")
    data = tar.read(header.size)
    tar.skip(-header.size % BLOCK)
    try:
        if header.type == tarfile.GNUTYPE_LONGNAME:
            found = {"path": data.rstrip(b"\0").decode()}
        else:
            found = {name: value for name, value in _pax_records(data) if name in ("path", "size")}
    except UnicodeDecodeError as error:
        raise DamagedTarError(f"the member name near byte {tar.position} is not UTF-8") from error
    if "\0" in found.get("path", ""):
        raise DamagedTarError(f"the member name near byte {tar.position} holds a zero byte")
    return found


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records `length key=value newline`, the length counting itself."""
    while data:
        match = PAX_RECORD.match(data)
        length = int(match[1]) if match else 0
        if not match or not match.end() < length <= len(data) or data[length - 1] != ord("\n"):
            raise DamagedTarError("damaged pax header")
        yield match[2].decode(), data[match.end() : length - 1].decode()
        data = data[length:]


def _member_size(header: tarfile.TarInfo, override: dict[str, str]) -> int:
    text = override.get("size", str(header.size))
    # A negative size would send the reader backwards for ever.
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise DamagedTarError(f"member {header.name!r} claims a size of {text[:20]}")
    return int(text)
