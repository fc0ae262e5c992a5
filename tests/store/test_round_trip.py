from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from store.errors import LabelMapError, LabelNotFoundError
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@st.composite
def schemas(draw: st.DrawFn) -> StoreSchema:
    num_classes = draw(st.sampled_from([1, 3, 1000, 65_535]))
    return make_schema(
        num_classes=num_classes,
        top_k=draw(st.integers(1, min(4, num_classes))),
        map_size=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
    )


@st.composite
def label_groups(draw: st.DrawFn, schema: StoreSchema) -> GroupLabels:
    rows = draw(st.integers(1, 130))
    maps = (rows, schema.top_k, *schema.map_size)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    first = rng.integers(0, schema.num_classes, (rows, 1, *schema.map_size))
    scores = -np.sort(-rng.uniform(0, 65_504, maps), axis=1)
    return GroupLabels(
        classes=((first + np.arange(schema.top_k)[:, None, None]) % schema.num_classes).astype(np.uint16),
        scores=scores.astype(np.float16),
        tail_logsumexp=draw(st.none() | st.just(rng.normal(0, 9, (rows, *schema.map_size)).astype(np.float16))),
        keys=tuple(draw(st.lists(KEYS, min_size=rows, max_size=rows, unique=True))),
        offsets=draw(hnp.arrays(np.uint64, (rows, 2), elements=st.integers(0, 1 << 40))),
        digests=draw(hnp.arrays(np.uint64, rows)),
        labels=draw(hnp.arrays(np.int32, rows, elements=st.integers(-1, (1 << 31) - 1))),
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("round") / "labels.zarr"
    schema = data.draw(schemas())
    labels = data.draw(label_groups(schema))
    written = StoreWriter.open(path, schema).write("a", labels, tar=TAR, provenance=PROVENANCE)
    store = LabelStore.open(path)
    group = store.group("a")
    rows = group.read()
    assert store.schema == schema
    assert group.commit == written
    for name in ("classes", "scores", "tail_logsumexp"):
        assert np.array_equal(getattr(rows, name), getattr(labels, name))
    for name in ("offsets", "digests", "labels"):
        assert np.array_equal(getattr(group, name), getattr(labels, name))
    assert tuple(group.keys) == labels.keys
    i = data.draw(st.integers(0, len(group) - 1))
    assert np.array_equal(group.row(i).scores, labels.scores[i])
    found, row = store.find(labels.keys[i])
    assert (found.name, row) == ("a", i)


def test_plain_zarr_reads_the_same_with_names_and_checksums(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    labels = make_labels(schema := make_schema(), 70)
    StoreWriter.open(path, schema).write("a", labels, tar=TAR, provenance=PROVENANCE)
    group = zarr.open_group(path, mode="r", zarr_format=3)["a"]
    assert isinstance(group, zarr.Group)
    for name, dimensions in (("classes", ("row", "rank", "y", "x")), ("tail", ("row", "y", "x")), ("keys", ("row",))):
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert array.metadata.dimension_names == dimensions  # type: ignore[union-attr]
        assert "crc32c" in str(array.metadata.to_dict())
    assert np.array_equal(np.asarray(group["scores"]), labels.scores)
    assert group["classes"].fill_value == 65_535  # type: ignore[union-attr]


def test_quarantined_rows_hold_fill_values_and_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    kept = mark_undecodable(make_labels(schema := make_schema(), 3), 1, "damaged JPEG")
    StoreWriter.open(path, schema).write("a", kept, tar=TAR, provenance=PROVENANCE)
    group = LabelStore.open(path).group("a")
    assert group.undecodable == {1: "damaged JPEG"}
    assert group.row(1).undecodable == "damaged JPEG"
    assert np.isnan(group.row(1).scores).all()
    assert group.row(0).undecodable is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores", np.zeros((3, 3, 2, 5), np.float16), "scores has shape"),
        ("scores", np.full((3, 3, 2, 4), np.inf, np.float16), "not finite"),
        ("scores", np.cumsum(np.ones((3, 3, 2, 4), np.float16), axis=1), "descend along K"),
        ("keys", ("a", "b", "a"), "3 rows need as many different keys"),
        ("tail_logsumexp", np.zeros((3, 2), np.float16), "tail_logsumexp has shape"),
    ],
)
def test_labels_that_the_format_cannot_hold_are_refused(name: str, value: object, message: str) -> None:
    labels = make_labels(make_schema(), 3)
    fields = {field: getattr(labels, field) for field in GroupLabels.__slots__}
    with pytest.raises(LabelMapError, match=message):
        GroupLabels(**(fields | {name: value}))


def test_maps_that_do_not_fit_the_store_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter.open(tmp_path / "labels.zarr", make_schema())
    for other, message in ((make_schema(map_size=(3, 3)), "maps of shape"), (make_schema(num_classes=900), "class id")):
        with pytest.raises(LabelMapError, match=message):
            writer.write("a", make_labels(other, 9), tar=TAR, provenance=PROVENANCE)
    assert LabelStore.open(tmp_path / "labels.zarr").names() == []


def test_absent_groups_keys_and_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, make_schema()).write("a", make_labels(make_schema(), 2), tar=TAR, provenance={})
    store = LabelStore.open(path)
    with pytest.raises(LabelNotFoundError, match="no labels for the shard 'b'"):
        store.group("b")
    with pytest.raises(LabelNotFoundError, match=r"no labels for the shard '\.\./a'"):
        store.group("../a")
    with pytest.raises(LabelNotFoundError, match="no key 'nobody'"):
        store.find("nobody")
    for row in (-1, 2):
        with pytest.raises(LabelNotFoundError, match=f"row {row}; the group has 2 rows"):
            store.group("a").row(row)
