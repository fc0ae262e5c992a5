"""Stores with sealed records whose arrays are laid out otherwise than the format prescribes are errors at once."""

import hashlib
import json
import multiprocessing
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd

from store.cli.main import main
from store.errors import CodecError, DamagedStoreError, RelabelError, StoreReadError
from store.format.schema import MAX_ROWS
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.stores import ROWS, SCHEMA, reseal, write

MAPS = (SCHEMA.top_k, *SCHEMA.map_size)
CLASSES, KEYS, OFFSETS = "classes/c/0/0/0/0", "keys/c/0", "offsets/c/0/0"
PROCESSES = multiprocessing.get_context("forkserver")
BOMB = 1 << 33  # bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "labels.zarr", "a")
    return tmp_path / "labels.zarr"


def replace_object(path: Path, name: str, data: bytes, **fields: object) -> None:
    """Replace an object of group a, and seal the record."""
    (path / "a" / name).write_bytes(data)
    objects = json.loads((path / "a" / "zarr.json").read_text())["attributes"]["relabel.commit"]["objects"]
    objects[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    reseal(path, {"objects": objects, **fields})


def summed(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")


def shard_of(*chunks: bytes) -> bytes:
    """The object of a sharded array with these inner chunks."""
    ends = np.cumsum([len(chunk) for chunk in chunks])
    index = np.array([(end - len(chunk), len(chunk)) for end, chunk in zip(ends, chunks, strict=True)], "<u8")
    return b"".join(chunks) + summed(index.tobytes())


def zstd_bomb(size: int = BOMB) -> bytes:
    """So many zeros as a zstd frame whose blocks of 4 bytes each repeat one byte 131,072 times."""
    block = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    header = b"\x28\xb5\x2f\xfd" + bytes([0xC0, 0x38]) + size.to_bytes(8, "little")
    last = ((1 << 17) << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return header + block * (size // (1 << 17) - 1) + last


def blosc_bomb() -> bytes:
    data = bytearray(Blosc("zstd", 7, Blosc.SHUFFLE).encode(np.zeros(1 << 16, np.uint16)))
    data[4:8] = ((1 << 31) - 1).to_bytes(4, "little")
    return bytes(data)


def read_all(path: Path) -> None:
    group = LabelStore.open(path).group("a")
    group.read()
    _ = group.keys, group.offsets, group.digests, group.labels


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (CLASSES, shard_of(summed(zstd_bomb()), summed(zstd_bomb()))),
        ("scores/c/0/0/0/0", shard_of(summed(blosc_bomb()), summed(blosc_bomb()))),
        (KEYS, summed(zstd_bomb())),
        (OFFSETS, summed(zstd_bomb())),
    ],
    ids=["classes", "scores", "keys", "offsets"],
)
def test_chunk_that_would_decompress_to_gigabytes_is_refused_unread(path: Path, name: str, data: bytes) -> None:
    replace_object(path, name, data)
    reader = PROCESSES.Process(target=refused_in_little_memory, args=(path,))
    reader.start()
    reader.join(60)
    assert reader.exitcode == 3


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (CLASSES, shard_of(*[summed(zstd_bomb(1 << 25))] * 2), "a chunk of 33,554,432 bytes, expected 3,072"),
        (KEYS, summed(zstd_bomb(1 << 25)), "texts of 33,554,432 bytes, expected at most 4,587,804 bytes"),
        (OFFSETS, summed(zstd_bomb(1 << 25)), "a chunk of 33,554,432 bytes, expected 1,120"),
    ],
)
def test_chunk_of_another_size_is_refused_before_it_is_decompressed(
    path: Path, name: str, data: bytes, message: str
) -> None:
    replace_object(path, name, data)
    with pytest.raises(DamagedStoreError, match=rf"{name}: damaged \({message}"):
        read_all(path)


def refused_in_little_memory(path: Path) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), used + (1 << 29)))
    try:
        read_all(path)
    except DamagedStoreError as error:
        raise SystemExit(3 if "bytes, expected" in str(error) or "takes" in str(error) else 4) from None


def edit_metadata(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "a" / name / "zarr.json").read_text())
    change(document)
    replace_object(path, f"{name}/zarr.json", json.dumps(document).encode())


def sharding(document: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = document["codecs"][0]["configuration"]
    return inner


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("classes", lambda d: sharding(d).update(chunk_shape=[1, 1, 1, 1]), r"chunk_shape \[1, 1, 1, 1\], expected"),
        ("classes", lambda d: sharding(d)["codecs"][0]["configuration"].update(endian="big"), "endian 'big'"),
        ("classes", lambda d: sharding(d)["codecs"].insert(1, {"name": "transpose"}), "codecs .*transpose"),
        ("classes", lambda d: sharding(d).update(index_location="start"), "index_location 'start', expected 'end'"),
        ("classes", lambda d: d.update(shape=[1 << 24, *MAPS]), r"shape \[16777216, 3, 2, 4\], expected \[70,"),
        ("scores", lambda d: d.update(data_type="float64"), "data_type 'float64', expected 'float16'"),
        ("scores", lambda d: d.update(codecs=sharding(d)["codecs"]), "codecs"),
        ("keys", lambda d: d.update(data_type="variable_length_bytes"), "expected 'string'"),
        ("offsets", lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[1, 1]), "chunk_shape"),
        ("offsets", lambda d: d.update(storage_transformers=[{"name": "x"}]), "storage_transformers"),
        ("digests", lambda d: d.clear(), "zarr_format None, expected 3"),
    ],
)  # fmt: skip
def test_metadata_of_another_layout_is_refused(
    path: Path, name: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_metadata(path, name, change)
    with pytest.raises(DamagedStoreError, match=rf"{name}/zarr\.json: damaged \(.*{message}"):
        read_all(path)


def test_other_compression_levels_and_fields_are_read(path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        sharding(document)["codecs"][1]["configuration"].update(level=3, more=1)
        document.update(attributes={"more": 1}, fill_value=0)

    edit_metadata(path, "classes", change)
    read_all(path)


@pytest.mark.parametrize("rows", [ROWS + 64, MAX_ROWS])
def test_rows_that_the_objects_have_no_bytes_for_are_refused(path: Path, rows: int) -> None:
    reseal(path, {"rows": rows})
    with pytest.raises(DamagedStoreError, match="damaged"):
        read_all(path)
    result = CliRunner().invoke(main, ["verify", str(path), "--deep"])
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([(0, 1 << 40), (0, 10)], "a chunk is left out or beyond the end"),
        ([(1 << 63, 1 << 63), (0, 10)], "a chunk is left out or beyond the end"),
        ([((1 << 64) - 1, (1 << 64) - 1), (0, 10)], "a chunk is left out or beyond the end"),
        ([(0, 3), (0, 0)], "a chunk has a wrong checksum"),
    ],
)
def test_index_that_leads_out_of_its_object_is_refused(path: Path, index: list[tuple[int, int]], message: str) -> None:
    data = (path / "a" / CLASSES).read_bytes()
    body = data[: -(16 * len(index) + 4)]
    replace_object(path, CLASSES, body + summed(np.array(index, "<u8").tobytes()))
    with pytest.raises(DamagedStoreError, match=rf"{CLASSES}: damaged \({message}"):
        read_all(path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
def test_pipe_or_device_as_a_chunk_is_refused_without_waiting(path: Path, make: Callable[[Path], None]) -> None:
    (path / "a" / CLASSES).unlink()
    make(path / "a" / CLASSES)
    objects = json.loads((path / "a" / "zarr.json").read_text())["attributes"]["relabel.commit"]["objects"]
    group = LabelStore.open(path).unchecked_group("a")
    with pytest.raises(StoreReadError, match=f"{CLASSES}: cannot be read: not a regular file"):
        group.read()
    objects[CLASSES]["size"] = 0
    reseal(path, {"objects": objects})
    with pytest.raises(RelabelError, match=CLASSES):
        LabelStore.open(path).group("a").read()


def test_keys_of_another_number_are_refused(path: Path) -> None:
    texts = (1 << 31).to_bytes(4, "little") + b"".join(b"\1\0\0\0a" for _ in range(ROWS))
    replace_object(path, KEYS, summed(bytes(Zstd().encode(texts))))
    with pytest.raises(DamagedStoreError, match=rf"{KEYS}: damaged \(not {ROWS} keys"):
        read_all(path)


def test_a_pipeline_of_zarr_that_is_not_installed_does_not_make_a_store_damaged(path: Path) -> None:
    with zarr.config.set({"codec_pipeline.path": "nowhere.Pipeline"}):
        read_all(path)
        result = CliRunner().invoke(main, ["verify", str(path), "--deep"])
        assert (result.exit_code, "overwrite" in result.output) == (0, False)
        with pytest.raises(CodecError, match=r"zarr cannot encode arrays here: Pipeline class 'nowhere.Pipeline' not"):
            StoreWriter.open(path, SCHEMA)


def test_record_that_names_objects_of_no_array_is_refused(path: Path) -> None:
    """Merge and refresh would read them whole."""
    record = json.loads((path / "a" / "zarr.json").read_text())["attributes"]["relabel.commit"]
    reseal(path, {"objects": record["objects"] | {"other/c/0": {"size": 5 << 30, "sha256": "0" * 64}}})
    with pytest.raises(DamagedStoreError, match="names objects that no array has: 'other/c/0'"):
        LabelStore.open(path).group("a")
