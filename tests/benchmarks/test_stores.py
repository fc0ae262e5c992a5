"""The stores that benchmarks make: their groups are sound, and blank ones are never read."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.stores import BlankGroup, make_big_store
from store.format.schema import StoreSchema
from store.maintenance import verify_group
from store.reader import LabelStore
from store.writer import GroupLabels
from tests.builders.stores import make_labels, make_schema


def labels_of(schema: StoreSchema, rows: int) -> GroupLabels:
    offsets = np.array([(1024 * (row + 1), 100) for row in range(rows)], np.uint64)
    return replace(make_labels(schema, rows), offsets=offsets)


@pytest.mark.parametrize("linked", [False, True])
def test_groups_that_differ_in_their_keys_only_are_sound(tmp_path: Path, linked: bool) -> None:
    schema = make_schema()
    names_and_keys = [(f"g{i}", [f"k{i}_{row}" for row in range(70)]) for i in range(3)]
    make_big_store(tmp_path / "labels.zarr", schema, labels_of(schema, 70), names_and_keys, linked=linked)
    store = LabelStore.open(tmp_path / "labels.zarr")
    assert [(group.name, group.keys) for group in store] == names_and_keys
    assert [fault for name in store.names() for fault in verify_group(store, name, deep=True)] == []
    chunks = {(tmp_path / "labels.zarr" / f"g{i}" / "classes" / "zarr.json").stat().st_ino for i in range(3)}
    assert len(chunks) == (1 if linked else 3)


def test_a_blank_group_gives_its_rows_without_reading_the_store(tmp_path: Path) -> None:
    schema = make_schema()
    path = tmp_path / "labels.zarr"
    make_big_store(path, schema, labels_of(schema, 70), [("g", [str(row) for row in range(70)])])
    blank = BlankGroup.of(LabelStore.open(path).group("g")).fresh()
    shutil.rmtree(path)
    maps = blank.read(64, 70, with_tail=False)
    assert maps.classes.shape == maps.scores.shape == (6, schema.top_k, *schema.map_size)
    assert not np.any(maps.classes)
    assert len(blank) == 70
