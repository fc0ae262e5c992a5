"""A key looked up in the bytes of a group's `keys` array: a thousand groups are searched without opening any array.

The array is one chunk: text after text, each after its length, compressed and followed by a checksum (docs/format.md).
"""

import struct

from numcodecs.zstd import Zstd

from store.errors import DamagedStoreError

CHECKSUM_BYTES = 4
LENGTH = struct.Struct("<I")


def find_key(chunk: bytes, key: str, *, rows: int, where: str) -> int | None:
    """The row of a key in a chunk that was compared with its sha256; None if it is not there.

    Raises:
        DamagedStoreError: not a chunk of that many texts.
    """
    texts = key_texts(chunk, where=where)
    try:
        wanted = key.encode()
    except UnicodeEncodeError:
        return None
    # Most groups do not hold it: a search through all bytes is far quicker than one through all texts.
    if LENGTH.pack(len(wanted)) + wanted not in texts:
        return None
    try:
        return _row_of(texts, wanted, rows)
    except struct.error as error:
        raise DamagedStoreError(f"{where}: damaged: {error}") from error


def key_texts(chunk: bytes, *, where: str) -> bytes:
    """The bytes of all keys of a chunk, in which a part of one can be looked for.

    Raises:
        DamagedStoreError: they cannot be unpacked.
    """
    try:
        return bytes(Zstd().decode(chunk[:-CHECKSUM_BYTES]))
    except (RuntimeError, ValueError, MemoryError) as error:
        raise DamagedStoreError(f"{where}: damaged: {error}") from error


def _row_of(texts: bytes, wanted: bytes, rows: int) -> int | None:
    at = LENGTH.size  # after the number of texts
    for row in range(rows):
        (length,) = LENGTH.unpack_from(texts, at)
        at += LENGTH.size
        if length == len(wanted) and texts.startswith(wanted, at):
            return row
        at += length
    return None
