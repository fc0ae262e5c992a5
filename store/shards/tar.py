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
SPARSE = "GNU.sparse."  # of the pax records of all three versions, 0.0, 0.1 and 1.0
SPARSE_NAME = "GNU.sparse.name"  # of versions 0.1 and 1.0, whose header holds another name
EXTENDED = (tarfile.XGLTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

IS_SPARSE = (
    "a sparse file, stored without its holes; pack it with GNU tar without --sparse (-S), "
    "or with bsdtar --no-read-sparse"
)
NOT_FILES = {
    tarfile.GNUTYPE_SPARSE: IS_SPARSE,
    tarfile.LNKTYPE: "a hard link to LINK, without bytes of its own; pack with GNU tar --hard-dereference",
    tarfile.SYMTYPE: "a symbolic link to LINK; pack with tar --dereference (-h), which stores the file itself",
    tarfile.FIFOTYPE: "a named pipe; leave it out",
    tarfile.CHRTYPE: "a device; leave it out",
    tarfile.BLKTYPE: "a device; leave it out",
    b"V": "a volume label, not a file; pack without --label (-V)",
    b"M": "the end of a file that begins in another volume; pack without --multi-volume (-M)",
    b"D": "a folder of an incremental backup; pack without --incremental (-G)",
}


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
        DamagedTarError: truncated, damaged, or with members that are not regular files, or are sparse ones.
    """
    override: dict[str, str] = {}  # from a pax or GNU header, for the next member
    while (header := _next_header(tar)) is not None:
        if header.type in EXTENDED:
            override |= _extended_header(header, tar)
            continue
        name, size = override.get("path", header.name), _member_size(header, override)
        if header.type == tarfile.DIRTYPE:
            override = {}
            continue
        _check_regular(header, override)
        override = {}
        offset, padding = tar.position, -size % BLOCK
        is_read = size <= MAX_KEPT_BYTES and kept(name)
        data = tar.read(size) if is_read else None
        tar.skip(padding if is_read else size + padding)
        yield Member(name, offset, size, data)
    if override:
        raise DamagedTarError("ends after an extended header: truncated")


def _check_regular(header: tarfile.TarInfo, override: dict[str, str]) -> None:
    """Refuse a member whose bytes in the tar are not those of a file, and say what it is."""
    if any(name.startswith(SPARSE) for name in override):
        what = IS_SPARSE
    elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return
    else:
        what = NOT_FILES.get(header.type, f"of the type {header.type!r}, not a regular file; leave it out")
    name = override.get(SPARSE_NAME, override.get("path", header.name))
    link = repr(override.get("linkpath", header.linkname))
    raise DamagedTarError(f"member {name!r} is {what.replace('LINK', link)}")


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
    """What a pax header or a GNU header says of the next member: name, size, target of a link, and holes."""
    if not 0 < header.size <= MAX_NAME_BYTES:
        raise DamagedTarError(f"extended header of {header.size} bytes near byte {tar.position}")
    data = tar.read(header.size)
    tar.skip(-header.size % BLOCK)
    try:
        if header.type == tarfile.GNUTYPE_LONGNAME:
            found = {"path": data.rstrip(b"\0").decode()}
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            found = {"linkpath": data.rstrip(b"\0").decode()}
        else:
            found = {name.decode(): value.decode() for name, value in _pax_records(data) if _is_needed(name)}
    except UnicodeDecodeError as error:
        raise DamagedTarError(f"the member name near byte {tar.position} is not UTF-8") from error
    if "\0" in found.get("path", ""):
        raise DamagedTarError(f"the member name near byte {tar.position} holds a zero byte")
    if header.type == tarfile.XGLTYPE and found:
        raise DamagedTarError(f"a global header gives all members one {next(iter(found))}; pack without it")
    return found


def _is_needed(name: bytes) -> bool:
    return name in (b"path", b"size", b"linkpath") or name.startswith(SPARSE.encode())


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of records `length name=value newline`, the length counting itself."""
    while data:
        match = PAX_RECORD.match(data)
        length = int(match[1]) if match else 0
        if not match or not match.end() < length <= len(data) or data[length - 1] != ord("\n"):
            raise DamagedTarError("damaged pax header")
        yield match[2], data[match.end() : length - 1]
        data = data[length:]


def _member_size(header: tarfile.TarInfo, override: dict[str, str]) -> int:
    text = override.get("size", str(header.size))
    # A negative size would send the reader backwards for ever.
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise DamagedTarError(f"member {header.name!r} claims a size of {text[:20]}")
    return int(text)
