"""The arrays of a label group and their encoding (format version 1, docs/format.md).

Letters: N rows, K kept classes, H W cells (y, x).
"""

from dataclasses import dataclass
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec
from zarr.storage import MemoryStore

from store.format.schema import StoreSchema

CHUNK_ROWS = 64  # rows of an inner chunk, the unit of decoding
NO_CLASS = 65_535

BIG_ARRAYS = ("classes", "scores", "tail")
LENGTH_BYTES = 4  # of the number of keys and of each key's length, little-endian
MAX_KEY_BYTES = 1 << 16  # as in a tar
MAX_KEYS_BYTES = 1 << 28  # of all keys of a group, as they are before compression


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

    @property
    def metadata_path(self) -> str:
        """The path of its metadata in the group."""
        return f"{self.name}/zarr.json"

    @property
    def chunk_path(self) -> str:
        """The path of the only object of its chunks, such as `keys/c/0`."""
        return "/".join((self.name, "c", *("0" for _ in self.shape)))

    @property
    def paths(self) -> tuple[str, str]:
        """The paths of all its objects."""
        return self.metadata_path, self.chunk_path


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
