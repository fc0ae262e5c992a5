"""Decoding of arrays whose layout is the one that the format prescribes, into memory of a size that is known before.

Zarr writes the arrays; they are not read through it. A store may come from anywhere, and Zarr decodes what an array's
own metadata and chunks ask for, however large. Here the metadata have to be those of a group with this many rows.

Letters: N rows, K kept classes, H W cells (y, x).
"""

import json
import math
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from store.errors import CodecError
from store.format.arrays import (
    CHUNK_ROWS,
    LENGTH_BYTES,
    MAX_KEY_BYTES,
    MAX_KEYS_BYTES,
    ArraySpec,
    array_specs,
    encode_array,
)
from store.format.schema import StoreSchema
from store.text import brief, first_line

INDEX_ENTRY = 16  # bytes of an inner chunk's offset and length
CHECKSUM_BYTES = 4  # at the end of every chunk and of an index
MIN_CHUNK = 1 + CHECKSUM_BYTES
HEADERS = 1024  # more than those of a compressed chunk take
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOSC_HEADER = 16
CODECS = ("codecs", "index_codecs")
LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
CHECKSUM = {"name": "crc32c"}


class DamagedArrayError(Exception):
    """Bytes that the format does not allow in an array; the caller adds the name of the object."""


def check_encoding(schema: StoreSchema) -> None:
    """Check that Zarr encodes arrays as the format prescribes, before anything is computed for it to encode.

    Raises:
        CodecError: it is configured to use something that is not installed, or writes another layout.
    """
    try:
        for spec in array_specs(schema, 1, with_tail=True):
            fill = np.full(spec.shape, spec.fill, object if spec.dtype == "string" else spec.dtype)
            objects = encode_array(spec, fill)
            check_layout(spec, objects[spec.metadata_path])
            if not spec.sharded:
                decode_array(spec, objects[spec.chunk_path])
    except Exception as error:  # configured classes raise anything
        raise CodecError(
            f"zarr cannot encode arrays here: {first_line(error)}; look for what its configuration (variables "
            "ZARR_..., files zarr.yaml) names and is not installed"
        ) from error


def check_layout(spec: ArraySpec, metadata: bytes) -> None:
    """Compare an array's `zarr.json` with the format: shape, type, chunks and codecs.

    Compression levels are the writer's choice; names of dimensions and fill values are for other readers.

    Raises:
        DamagedArrayError: the first part that differs.
    """
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise DamagedArrayError(f"cannot be read as JSON: {error}") from error
    _compare(found, _layout(spec), "metadata")
    if found.get("storage_transformers"):
        raise DamagedArrayError(f"storage_transformers {brief(found['storage_transformers'])}, expected none")


def _layout(spec: ArraySpec) -> dict[str, Any]:
    """The parts of an array's `zarr.json` on which its decoding depends."""
    serializer = {"name": "vlen-utf8"} if spec.dtype == "string" else LITTLE_ENDIAN
    codecs: list[object] = [serializer, {"name": "blosc" if _is_blosc(spec) else "zstd"}, CHECKSUM]
    chunk_shape = list(spec.shape)
    if spec.sharded:
        inner = {"chunk_shape": [CHUNK_ROWS, *spec.shape[1:]], "codecs": codecs,
                 "index_codecs": [LITTLE_ENDIAN, CHECKSUM], "index_location": "end"}  # fmt: skip
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
        chunk_shape[0] = chunk_count(spec) * CHUNK_ROWS
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": codecs,
    }


def _compare(found: object, expected: object, where: str) -> None:
    """Raise DamagedArrayError unless what is found has all that is expected; objects may have more fields."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            _compare(found.get(name), value, name)
    elif where in CODECS and isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for one, other in zip(found, expected, strict=True):
            _compare(one, other, where)
    elif found != expected:
        raise DamagedArrayError(f"{where} {brief(found)}, expected {brief(expected)}")


def chunk_count(spec: ArraySpec) -> int:
    """The number of inner chunks of a sharded array."""
    return -(-spec.shape[0] // CHUNK_ROWS)


def index_bytes(spec: ArraySpec) -> int:
    """The size of the index at the end of a sharded array's object."""
    return INDEX_ENTRY * chunk_count(spec) + CHECKSUM_BYTES


def size_limits(spec: ArraySpec) -> tuple[int, int]:
    """The smallest and the largest size of the object of an array's chunks; no rows are claimed without bytes."""
    chunks, index = (chunk_count(spec), index_bytes(spec)) if spec.sharded else (1, 0)
    if spec.dtype == "string":
        decoded = _max_key_texts(spec.shape[0])
    else:
        rows = chunks * CHUNK_ROWS if spec.sharded else spec.shape[0]
        decoded = rows * math.prod(spec.shape[1:]) * np.dtype(spec.dtype).itemsize
    # What cannot be compressed grows by less than a hundredth and a header.
    return chunks * MIN_CHUNK + index, decoded + decoded // 100 + chunks * HEADERS + index


def _max_key_texts(rows: int) -> int:
    return min(LENGTH_BYTES + rows * (LENGTH_BYTES + MAX_KEY_BYTES), MAX_KEYS_BYTES)


def decode_index(spec: ArraySpec, data: bytes, object_size: int) -> NDArray[np.int64]:
    """Where the inner chunks of a sharded array are.

    Args:
        spec: of the array.
        data: the last `index_bytes` of its object.
        object_size: bytes of the object.

    Returns:
        (chunks, 2) int64: first byte in the object and the byte after the last.

    Raises:
        DamagedArrayError: a wrong checksum, or a chunk that is left out or not within the object.
    """
    if len(data) != index_bytes(spec):
        raise DamagedArrayError("ends within the index of its chunks")
    entries = np.frombuffer(_checked(data, "the index of its chunks"), "<u8").reshape(-1, 2)
    end = object_size - index_bytes(spec)
    offsets, lengths = entries.T
    if (offsets > end).any() or (lengths > end - offsets).any():
        raise DamagedArrayError("a chunk is left out or beyond the end of the object")
    return np.stack([offsets, offsets + lengths], axis=1).astype(np.int64)


def decode_chunk(spec: ArraySpec, chunk: bytes, out: NDArray[Any]) -> None:
    """Decode one chunk.

    Args:
        spec: of the array.
        chunk: as stored.
        out: of the chunk's shape and the array's type, contiguous, to be filled.

    Raises:
        DamagedArrayError: a wrong checksum, or not a chunk of this size.
    """
    data = _checked(chunk, "a chunk")
    codec, size = (Blosc(), _blosc_size(data)) if _is_blosc(spec) else (Zstd(), _zstd_size(data))
    if size not in (None, out.nbytes):
        raise DamagedArrayError(f"a chunk of {size:,} bytes, expected {out.nbytes:,}")
    _decompress(codec, data, out.reshape(-1).view(np.uint8))


def decode_array(spec: ArraySpec, chunk: bytes) -> NDArray[Any]:
    """All values of an array with one chunk; keys come as Python texts.

    Raises:
        DamagedArrayError: a wrong checksum, or not the chunk of an array of this shape.
    """
    if spec.dtype == "string":
        return decode_keys(key_texts(chunk, spec.shape[0]), spec.shape[0])
    values = np.empty(spec.shape, np.dtype(spec.dtype).newbyteorder("<"))
    decode_chunk(spec, chunk, values)
    return values


def key_texts(chunk: bytes, rows: int) -> bytes:
    """The decompressed bytes of a `keys` chunk: the number of keys, then each key's length in bytes and UTF-8 text.

    Raises:
        DamagedArrayError: they are not those of so many keys.
    """
    data = _checked(chunk, "a chunk")
    size, limit = _zstd_size(data), _max_key_texts(rows)
    if size is None or size > limit:
        found = "of unknown size" if size is None else f"of {size:,} bytes"
        raise DamagedArrayError(f"texts {found}, expected at most {limit:,} bytes")
    out = np.empty(size, np.uint8)
    _decompress(Zstd(), data, out)
    texts = out.tobytes()
    if int.from_bytes(texts[:LENGTH_BYTES], "little") != rows or len(texts) < LENGTH_BYTES * (1 + rows):
        raise DamagedArrayError(f"not {rows} keys")
    return texts


def find_key(texts: bytes, key: str, rows: int) -> int | None:
    """The row of a key; None if it is not there.

    Args:
        texts: of `key_texts`.
        key: the key to find.
        rows: N.

    Raises:
        DamagedArrayError: the texts cannot be decoded.
    """
    try:
        wanted = key.encode()
    except UnicodeEncodeError:
        return None
    # Most groups do not have the key, and a search through the bytes is much faster than decoding all keys.
    if len(wanted).to_bytes(LENGTH_BYTES, "little") + wanted not in texts:
        return None
    keys = decode_keys(texts, rows).tolist()
    return keys.index(key) if key in keys else None


def keys_named(texts: bytes, name: str, rows: int) -> list[str]:
    """The keys whose last part, after any folders, is this name; arguments and errors as of `find_key`."""
    if name.encode(errors="replace") not in texts:
        return []
    return [key for key in decode_keys(texts, rows).tolist() if key.rpartition("/")[2] == name]


def decode_keys(texts: bytes, rows: int) -> NDArray[Any]:
    """(N,) Python texts: the keys of `key_texts`.

    Raises:
        DamagedArrayError: they cannot be decoded.
    """
    try:
        keys: NDArray[Any] = VLenUTF8().decode(texts)
    except ValueError as error:
        raise DamagedArrayError(str(error)) from error
    if keys.shape != (rows,):
        raise DamagedArrayError(f"not {rows} keys")
    return keys


def _is_blosc(spec: ArraySpec) -> bool:
    return isinstance(spec.compressor, BloscCodec)


def _checked(data: bytes, what: str) -> bytes:
    """The bytes before a checksum that is right."""
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(data) < MIN_CHUNK or google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise DamagedArrayError(f"{what} has a wrong checksum")
    return body


def _decompress(codec: Any, data: bytes, out: NDArray[np.uint8]) -> None:  # noqa: ANN401  (numcodecs is not typed)
    try:
        codec.decode(data, out=out)
    except (RuntimeError, ValueError) as error:
        raise DamagedArrayError(f"a chunk cannot be decompressed: {error}") from error


def _blosc_size(data: bytes) -> int:
    """The size of what a blosc buffer decompresses to, from its header."""
    if len(data) < BLOSC_HEADER or int.from_bytes(data[12:16], "little") != len(data):
        raise DamagedArrayError("a chunk that is no blosc buffer")
    return int.from_bytes(data[4:8], "little")


def _zstd_size(data: bytes) -> int | None:
    """The size of what a zstd frame decompresses to, from its header (RFC 8878, 3.1.1.1); None where it is left out."""
    if not data.startswith(ZSTD_MAGIC) or len(data) < 6:
        raise DamagedArrayError("a chunk that is no zstd frame")
    descriptor = data[4]
    is_single = bool(descriptor & 0x20)
    size_bytes = (int(is_single), 2, 4, 8)[descriptor >> 6]
    start = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    field = data[start : start + size_bytes]
    if len(field) != size_bytes:
        raise DamagedArrayError("a chunk that is no zstd frame")
    return None if not size_bytes else int.from_bytes(field, "little") + (256 if size_bytes == 2 else 0)
