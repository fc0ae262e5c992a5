"""A key is found in the bytes of a `keys` chunk, and damaged chunks are errors."""

from typing import Any

import google_crc32c
import numpy as np
import pytest
from numcodecs.zstd import Zstd

from store.format.arrays import array_specs, encode_array
from store.format.chunks import DamagedArrayError, find_key, key_texts
from tests.builders.stores import make_schema

KEYS = ("a", "bc", "\u00e9l\u00e9phant", "a/b", "ab")


def chunk_of(keys: tuple[str, ...]) -> bytes:
    spec = next(spec for spec in array_specs(make_schema(), len(keys), with_tail=True) if spec.name == "keys")
    return encode_array(spec, np.array(keys, dtype=object))["keys/c/0"]


def packed(texts: bytes) -> bytes:
    return summed(bytes(Zstd().encode(texts)))


def summed(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def find(chunk: bytes, key: str, rows: int = len(KEYS)) -> Any:
    return find_key(key_texts(chunk, rows), key, rows)


def test_every_key_is_found_and_no_part_of_one() -> None:
    chunk = chunk_of(KEYS)
    assert [find(chunk, key) for key in KEYS] == list(range(len(KEYS)))
    assert [find(chunk, key) for key in ("b", "c", "a/", "", "\ud800")] == [None] * 5


def test_key_inside_the_bytes_of_others_is_not_found() -> None:
    inner = (1).to_bytes(4, "little").decode() + "z"
    assert find(chunk_of((inner, "b")), "z", rows=2) is None


def texts(count: int, *keys: bytes) -> bytes:
    return count.to_bytes(4, "little") + b"".join(len(key).to_bytes(4, "little") + key for key in keys)


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        summed(b"not compressed at all"),
        packed(texts(2, b"a", b"b"))[:-1],
        packed(texts(1 << 31, b"a")),
        packed(texts(1, b"a")),
        packed(texts(2, b"a")),
        packed(texts(2, b"\xff", b"a")),
    ],
    ids=["empty", "not zstd", "checksum", "two billion keys", "too few keys", "cut", "not UTF-8"],
)
def test_damaged_chunk_is_an_error(chunk: bytes) -> None:
    with pytest.raises(DamagedArrayError):
        find(chunk, "a", rows=2)
