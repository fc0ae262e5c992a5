"""Encoding of a label group's arrays, and the lookup of a key in encoded keys (format version 1, docs/format.md).

Letters: N rows, K kept classes, H W cells (y, x).
"""

from dataclasses import dataclass
from typing import Any

import zarr
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec
from zarr.storage import MemoryStore

from store.errors import DamagedStoreError
from store.format.schema import StoreSchema

CHUNK_ROWS = 64  # rows of an inner chunk, the unit of decoding
NO_CLASS = 65_535

BIG_ARRAYS = ("classes", "scores", "tail")
LENGTH_BYTES = 4  # of the number of keys and of each key's length, little-endian
CHECKSUM_BYTES = 4  # at the end of every chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """Shape, type and codecs of one array of a label group."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a numpy dtype, or "string"
    dimensions: tuple[str, ...]
    fill: Any
    sharded: bool  # one object of inner chunks with their own checksums, or one plain chunk
    compressor: BytesBytesCodec


def array_specs(schema: StoreSchema, rows: int, *, with_tail: bool) -> list[ArraySpec]:
    """The arrays of a group with this many rows, in the order of writing."""
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
    """The encoded objects of one array by their path in its group, such as `keys/zarr.json` and `keys/c/0`."""
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
        # Else a chunk of fill values is not written, and looks like a lost one.
        config={"write_empty_chunks": True},
    )
    array[...] = values
    return {f"{spec.name}/{path}": data.to_bytes() for path, data in objects.items()}


def find_key(chunk: bytes, key: str, *, rows: int, where: str) -> int | None:
    """The row of a key in the only chunk of a `keys` array; None if it is not there.

    Args:
        chunk: the chunk as stored, already compared with its sha256.
        key: the key to find.
        rows: N, the keys that the chunk should have.
        where: the array, for messages.

    Raises:
        DamagedStoreError: not a chunk of that many keys.
    """
    texts = key_texts(chunk, where=where)
    try:
        wanted = key.encode()
    except UnicodeEncodeError:
        return None
    # Most groups do not have the key, and a search through the bytes is much faster than decoding all keys.
    if len(wanted).to_bytes(LENGTH_BYTES, "little") + wanted not in texts:
        return None
    keys = _decode_keys(texts, rows=rows, where=where)
    return keys.index(key) if key in keys else None


def keys_named(chunk: bytes, name: str, *, rows: int, where: str) -> list[str]:
    """The keys of a chunk whose last part, after any folders, is this name; arguments and errors as of `find_key`."""
    texts = key_texts(chunk, where=where)
    if name.encode(errors="replace") not in texts:
        return []
    return [key for key in _decode_keys(texts, rows=rows, where=where) if key.rpartition("/")[2] == name]


def _decode_keys(texts: bytes, *, rows: int, where: str) -> list[str]:
    if int.from_bytes(texts[:LENGTH_BYTES], "little") != rows:
        raise DamagedStoreError(f"{where}: damaged: not {rows} keys")
    try:
        keys: list[str] = VLenUTF8().decode(texts).tolist()
    except ValueError as error:
        raise DamagedStoreError(f"{where}: damaged: {error}") from error
    return keys


def key_texts(chunk: bytes, *, where: str) -> bytes:
    """The decompressed bytes of a `keys` chunk: the number of keys, then each key's length in bytes and UTF-8 text.

    Raises:
        DamagedStoreError: they cannot be decompressed.
    """
    try:
        return bytes(Zstd().decode(chunk[:-CHECKSUM_BYTES]))
    except (RuntimeError, ValueError, MemoryError) as error:
        raise DamagedStoreError(f"{where}: damaged: {error}") from error
