"""How the arrays of a label group are encoded (format version 1, docs/format.md).

Shape letters: N rows, K ranks, H W cells (y, x).
"""

import struct
from dataclasses import dataclass
from typing import Any

import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec
from zarr.storage import MemoryStore

from store.errors import DamagedStoreError
from store.format.schema import StoreSchema

CHUNK_ROWS = 64  # rows of an inner chunk: what one random read decodes
NO_CLASS = 65_535

BIG_ARRAYS = ("classes", "scores", "tail")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """How one array of a label group is laid out."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a numpy dtype, or "string"
    dimensions: tuple[str, ...]
    fill: Any
    sharded: bool  # one object of inner chunks with their own checksums, or one plain chunk
    compressor: BytesBytesCodec


def array_specs(schema: StoreSchema, rows: int, *, with_tail: bool) -> list[ArraySpec]:
    """The arrays of a group with this many rows, in the order in which they are written."""
    cells = ("y", "x")
    zstd = ZstdCodec(level=9)
    # Scores are neighbouring floats: shuffled bytes compress better; class ids do not.
    blosc = BloscCodec(cname="zstd", clevel=7, shuffle="shuffle", typesize=2)
    maps = (rows, schema.top_k, *schema.map_size)

    def big(name: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], fill: object,
            codec: BytesBytesCodec) -> ArraySpec:  # fmt: skip
        return ArraySpec(
            name=name, shape=shape, dtype=dtype, dimensions=dims, fill=fill, sharded=True, compressor=codec
        )

    def small(name: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], fill: object) -> ArraySpec:
        return ArraySpec(
            name=name, shape=shape, dtype=dtype, dimensions=dims, fill=fill, sharded=False, compressor=zstd
        )

    specs = [
        big("classes", maps, "uint16", ("row", "rank", *cells), NO_CLASS, zstd),
        big("scores", maps, "float16", ("row", "rank", *cells), float("nan"), blosc),
    ]
    if with_tail:
        specs.append(big("tail", (rows, *schema.map_size), "float16", ("row", *cells), float("nan"), blosc))
    return [
        *specs,
        small("keys", (rows,), "string", ("row",), ""),
        small("offsets", (rows, 2), "uint64", ("row", "extent"), 0),
        small("digests", (rows,), "uint64", ("row",), 0),
        small("targets", (rows,), "int32", ("row",), -1),
    ]


def encode_array(spec: ArraySpec, values: NDArray[Any]) -> dict[str, bytes]:
    """The objects of one array by their path below its group, such as `keys/zarr.json` and `keys/c/0`."""
    chunks = (CHUNK_ROWS, *spec.shape[1:]) if spec.sharded else spec.shape
    shards = (-(-spec.shape[0] // CHUNK_ROWS) * CHUNK_ROWS, *spec.shape[1:]) if spec.sharded else None
    is_text = spec.dtype == "string"
    objects: dict[str, Buffer] = {}
    array = zarr.create_array(
        store=MemoryStore(objects),
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=chunks,
        shards=shards,
        filters=(),
        serializer=VLenUTF8Codec() if is_text else BytesCodec(),
        compressors=(spec.compressor, Crc32cCodec()),
        fill_value=spec.fill,
        dimension_names=spec.dimensions,
        # Without this, a chunk of fill values would be left out and read like one that was lost.
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return {f"{spec.name}/{path}": data.to_bytes() for path, data in objects.items()}


# A key looked up in the bytes of a group's `keys` array: a thousand groups are searched without opening any array.
#
# The array is one chunk: text after text, each after its length, compressed and followed by a checksum
# (docs/format.md).


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
