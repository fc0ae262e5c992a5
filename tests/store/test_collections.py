"""`LabelStore`, `LabelGroup` and their rows as collections, and their one-line reprs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import LabelNotFoundError, RowNotFoundError
from store.group import GroupRow, LabelGroup
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable
from tests.builders.view_store import EVIL_KEY, write_view_store

ROWS = 150  # more than two chunks


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collections") / "labels.zarr"
    writer = StoreWriter.open(path, make_schema())
    for seed, rows in ((0, ROWS), (1, 5)):
        labels = mark_undecodable(make_labels(make_schema(), rows, seed), 2, "damaged")
        writer.write(f"train-{seed}", labels, tar=TAR, provenance=PROVENANCE)
    return path


@pytest.fixture
def store(path: Path) -> LabelStore:
    return LabelStore.open(path)


def same(a: GroupRow, b: GroupRow) -> bool:
    arrays = all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in ("scores", "tail_logsumexp"))
    names = ("key", "label", "offset", "length", "undecodable", "number", "group")
    return arrays and np.array_equal(a.classes, b.classes) and all(getattr(a, n) == getattr(b, n) for n in names)


def test_store_is_a_collection_of_groups_by_name(store: LabelStore) -> None:
    assert len(store) == 2
    assert [group.name for group in store] == ["train-0", "train-1"]
    assert "train-1" in store
    assert "train-2" not in store
    assert isinstance(store["train-1"], LabelGroup)
    assert store["train-1"].keys == store.group("train-1").keys
    with pytest.raises(LabelNotFoundError, match="no labels for the shard 'train-2'"):
        store["train-2"]


def test_store_without_groups_is_empty_and_still_a_store(tmp_path: Path) -> None:
    store = StoreWriter.open(tmp_path / "labels.zarr", make_schema()).store
    assert (len(store), list(store), bool(store)) == (0, [], True)


def test_only_names_are_in_a_store(store: LabelStore) -> None:
    assert store["train-0"] not in store  # a group is what iteration gives, its name is what the store is asked for
    assert None not in store


@pytest.mark.parametrize("index", [1.0, "seed0/row0003", None])
def test_what_is_no_row_number_is_no_damage(store: LabelStore, index: Any) -> None:
    for ask in (store["train-0"].__getitem__, store["train-0"].row):
        with pytest.raises(TypeError, match="rows are numbered: expected an integer"):
            ask(index)
    with pytest.raises(TypeError, match="groups have names"):
        store[3]  # type: ignore[index]


def test_rows_beyond_the_end_are_named_as_they_were_asked_for(store: LabelStore) -> None:
    with pytest.raises(RowNotFoundError, match=f"row -{ROWS + 1}; the group has {ROWS} rows"):
        store["train-0"][-ROWS - 1]
    assert store["train-0"][np.int64(3)].number == 3


def test_group_is_a_sequence_of_its_rows(store: LabelStore) -> None:
    group = store["train-0"]
    assert len(group) == ROWS
    rows = list(group)
    assert [row.number for row in rows] == list(range(ROWS))
    for i in (0, 1, 2, 63, 64, ROWS - 1, -1, -ROWS):
        assert same(group[i], rows[i])
        assert group[i].group is group
    assert [row.number for row in group[148:]] == [148, 149]
    assert [row.number for row in group[4:0:-2]] == [4, 2]
    assert [row.number for row in reversed(group[:3])] == [2, 1, 0]
    assert rows[2].undecodable == "damaged"


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1])
def test_row_beyond_the_group_is_an_index_error_and_ours(store: LabelStore, index: int) -> None:
    with pytest.raises(IndexError, match=f"the group has {ROWS} rows") as caught:
        store["train-0"][index]
    assert isinstance(caught.value, RowNotFoundError | LabelNotFoundError)


def test_negative_number_is_no_row_of_an_address(store: LabelStore) -> None:
    with pytest.raises(RowNotFoundError):
        store["train-0"].row(-1)


def test_key_is_in_its_group(store: LabelStore) -> None:
    group = store["train-1"]
    assert group.keys[3] in group
    assert "nobody" not in group
    assert 3 not in group


def test_reprs_are_one_short_line(path: Path, store: LabelStore, tmp_path: Path) -> None:
    teacher = "resnet18, 20 classes, top 3, 2 x 4"
    assert repr(store) == f"LabelStore('{path}', {teacher})"  # no group was read for it
    assert len(list(store)) == 2
    assert repr(store) == f"LabelStore('{path}', 2 groups, 155 rows, {teacher})"
    group = store["train-1"]
    assert repr(group) == "LabelGroup('train-1', 5 rows, 1 undecodable)"
    label = group.labels[3]
    facts = f"{f'label {label}' if label >= 0 else 'no label'}, top 3, 2 x 4"
    assert repr(group[3]) == f"GroupRow('seed1/row0003', {facts}, row 3 of 'train-1')"
    assert "undecodable" in repr(group[2])
    evil, _ = write_view_store(tmp_path)
    text = repr(LabelStore.open(evil)["train-0"][1])
    assert text.isprintable()
    assert repr(EVIL_KEY) in text
