"""The format as docs/format.md promises it: the golden store, and readers that know nothing of this project."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from store.maintenance import verify_group
from store.reader import LabelStore
from tests.builders.golden import BAD_ROW, CENTRED, FOLDER, PREFIX, ROWS, golden_labels, golden_schema


@pytest.mark.parametrize("folder", [FOLDER, CENTRED])
def test_golden_store_of_version_1_reads_as_it_was_written(folder: Path) -> None:
    store = LabelStore.open(folder)
    assert store.schema == golden_schema(centred=folder == CENTRED)
    assert store.names() == list(ROWS)
    for group in store:
        expected, maps = golden_labels(group.name, centred=folder == CENTRED), group.read()
        for name in ("classes", "scores", "tail_logsumexp"):
            wanted, found = getattr(expected, name), getattr(maps, name)
            assert (wanted is None) == (found is None)
            assert wanted is None or wanted.tobytes() == found.tobytes()
        for name in ("offsets", "digests", "labels"):
            assert np.array_equal(getattr(group, name), getattr(expected, name))
        assert tuple(group.keys) == expected.keys
        assert group.commit.undecodable == expected.undecodable
        assert group.commit.group == (group.name if folder == CENTRED else None)
        assert not verify_group(store, group.name, deep=True)
        assert [group.find(key) for key in expected.keys] == list(range(len(group)))
    assert store.group("train-0001").undecodable == {BAD_ROW: "damaged JPEG: premature end"}


@pytest.mark.parametrize("folder", [FOLDER, CENTRED])
def test_golden_store_is_sealed_as_the_format_page_says(folder: Path) -> None:
    root = json.loads((folder / "zarr.json").read_text())["attributes"]["relabel"]
    for name in ROWS:
        record = json.loads((folder / name / "zarr.json").read_text())["attributes"]["relabel.commit"]
        digest = record.pop("digest")
        text = json.dumps({"commit": record, "root": root}, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode("ascii")).hexdigest() == digest
        below = folder / name / record["prefix"]
        files = {file.relative_to(below).as_posix(): file for file in below.glob("*/**/*") if file.is_file()}
        assert files.keys() == record["objects"].keys()
        for path, entry in record["objects"].items():
            data = files[path].read_bytes()
            assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("name", ["classes", "scores"])
@pytest.mark.parametrize("group", list(ROWS))
def test_plain_zarr_xarray_and_tensorstore_read_the_same_values(group: str, name: str) -> None:
    expected = getattr(golden_labels(group), name)
    if group == "train-0002":
        group = f"{group}/{PREFIX}"
    array = zarr.open_group(FOLDER, mode="r")[f"{group}/{name}"]
    assert isinstance(array, zarr.Array)
    assert np.asarray(array[:]).tobytes() == expected.tobytes()
    dataset = xarray.open_zarr(FOLDER, group=group, consolidated=False, chunks=None, mask_and_scale=False)
    assert dataset[name].dims == ("row", "rank", "y", "x")
    assert dataset[name].values.tobytes() == expected.tobytes()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(FOLDER / group / name)}}
    opened = tensorstore.open(spec, read=True).result()
    assert np.asarray(opened.read().result()).tobytes() == expected.tobytes()


def test_shard_object_is_laid_out_as_the_format_page_says() -> None:
    """A reader of one row's class ids in a dozen lines, with a zstd decoder as the only library."""
    from numcodecs.zstd import Zstd

    data = (FOLDER / "train-0000" / "classes" / "c" / "0" / "0" / "0" / "0").read_bytes()
    chunks = 2  # of 64 rows, for 65
    index = data[-(16 * chunks + 4) :]
    for chunk in range(chunks):
        offset, size = struct.unpack_from("<QQ", index, 16 * chunk)
        inner = data[offset : offset + size]
        decoded = np.frombuffer(Zstd().decode(inner[:-4]), "<u2").reshape(64, 2, 3, 4)
        rows = min(64, 65 - 64 * chunk)
        expected = golden_labels("train-0000").classes[64 * chunk : 64 * chunk + rows]
        assert np.array_equal(decoded[:rows], expected)
