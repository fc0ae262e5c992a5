"""Import and export: maps come back as they were, groups are whole or absent, files never leave their folder."""

import hashlib
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from annotator.published import importing as matching
from annotator.published.exporting import ExportSummary, Namer, export_maps, official_limits, plan_export
from annotator.published.files import Axes
from annotator.published.importing import first_shape, import_maps
from annotator.published.origin import Origin
from annotator.published.source import open_source
from annotator.report import Summary
from store.errors import LabelMapError, SettingsError, StoreMismatchError, StoreWriteError
from store.format.schema import StoreSchema
from store.maps.pooling import pool_map
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.published import SilentExport, label_shard, make_tensor, pt_bytes, write_map
from tests.builders.stores import TAR, Members, make_jpeg, make_labels, make_schema, write_tar

ORIGIN = Origin(num_classes=12, input_size=(64, 64))


def export(labels: Path, folder: Path, axes: Axes = "xy", *, overwrite: bool = False) -> ExportSummary:
    plan = plan_export(LabelStore.open(labels), folder, overwrite=overwrite)
    return export_maps(plan, folder, axes=axes, reporter=SilentExport())


def run(
    root: Path, shards: list[Path], labels: Path, axes: Axes = "yx", *, origin: Origin = ORIGIN, overwrite: bool = False
) -> Summary:
    source = open_source(root)
    schema = origin.schema(first_shape(shards, source, num_classes=origin.num_classes), axes)
    summary = Summary()
    import_maps(shards, labels, source, schema, axes, summary, overwrite=overwrite)
    return summary


def members(keys: list[str]) -> Members:
    return [
        member
        for i, key in enumerate(keys)
        for member in ((f"{key}.jpg", make_jpeg(i)), (f"{key}.cls", str(i % 5).encode()))
    ]


def names(count: int) -> list[str]:
    return [f"n{i % 3:08}/n{i % 3:08}_{i}" for i in range(count)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "a.tar", members(names(5)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(names(5)):
        write_map(tmp_path / "root", name, seed=seed)
    return tmp_path / "root"


PART = st.text("abzé 0_-,'()", min_size=1, max_size=8).map(str.strip).filter(bool)
KEY = st.lists(PART, min_size=1, max_size=3).map("/".join)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    keys=st.lists(KEY, min_size=1, max_size=6, unique_by=lambda key: "/".join(key.split("/")[-2:])),
    ranks=st.integers(1, 4),
    cells=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    axes=st.sampled_from(["yx", "xy"]),
    packed=st.booleans(),
)
def test_store_comes_back_from_its_exported_files(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[str],
    ranks: int,
    cells: tuple[int, int],
    axes: Axes,
    packed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("round")
    keys = sorted(keys)  # a name alone must not be one of a folder's too
    bare = {key for key in keys if "/" not in key}
    keys = [key for key in keys if "/" not in key or key.rpartition("/")[2] not in bare]
    shard = write_tar(folder / "a.tar", members(keys))
    schema = make_schema(num_classes=12, top_k=ranks, map_size=cells)
    label_shard(folder / "labels.zarr", shard, schema, seed=ranks)
    written = export(folder / "labels.zarr", folder / "maps", axes)
    assert (written.written, written.failures) == (len(keys), [])
    root = folder / "maps"
    if packed:
        root = folder / "maps.tar"
        with tarfile.open(root, "w") as tar:
            tar.add(folder / "maps", "any/where")
    summary = run(root, [shard], folder / "again.zarr", axes)
    assert (summary.images, summary.failures) == (len(keys), {})
    before, after = (LabelStore.open(folder / name).group("a") for name in ("labels.zarr", "again.zarr"))
    np.testing.assert_array_equal(after.read().classes, before.read().classes)
    np.testing.assert_array_equal(after.read().scores, before.read().scores)
    np.testing.assert_array_equal(after.digests, before.digests)
    np.testing.assert_array_equal(after.offsets, before.offsets)
    assert (after.keys, after.labels.tolist()) == (before.keys, before.labels.tolist())
    assert (after.commit.tar, after.read().tail_logsumexp) == (before.commit.tar, None)


def test_imported_store_says_where_its_maps_are_from(tmp_path: Path, shard: Path, root: Path) -> None:
    run(root, [shard], tmp_path / "l.zarr", "xy")
    store = LabelStore.open(tmp_path / "l.zarr")
    assert (store.schema.top_k, store.schema.map_size, store.schema.num_classes) == (3, (4, 4), 12)
    assert (store.schema.teacher.architecture, store.schema.teacher.arguments) == ("published-relabel", {})
    text = b"relabel published maps 1\0published-relabel"  # docs/published_maps.md
    assert store.schema.teacher.digest == hashlib.sha256(text).hexdigest()
    assert store.schema.preprocessing.interpolation == "bilinear"
    assert store.group("a").commit.provenance["axes"] == "xy"


def test_axes_decide_whether_cells_are_transposed(tmp_path: Path, shard: Path, root: Path) -> None:
    for axes in ("yx", "xy"):
        run(root, [shard], tmp_path / axes, axes)
    as_yx, as_xy = (LabelStore.open(tmp_path / axes).group("a").read() for axes in ("yx", "xy"))
    np.testing.assert_array_equal(as_yx.classes[0], make_tensor(seed=0)[1].numpy())
    np.testing.assert_array_equal(as_xy.classes, as_yx.classes.swapaxes(2, 3))
    np.testing.assert_array_equal(as_xy.scores, as_yx.scores.swapaxes(2, 3))


def test_shard_with_missing_maps_is_left_out_and_the_others_finish(tmp_path: Path, shard: Path, root: Path) -> None:
    other = write_tar(tmp_path / "b.tar", members([*names(4), "n00000009/n00000009_1", "n00000009/n00000009_2"]))
    summary = run(root, [other, shard], tmp_path / "l.zarr")
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["a"]
    ((path, reason),) = summary.failures.items()
    assert path == other
    assert "2 of 6 samples have no map: 'n00000009/n00000009_1', 'n00000009/n00000009_2'" in reason


def test_shard_with_a_refused_map_is_left_out_and_the_file_is_named(tmp_path: Path, shard: Path, root: Path) -> None:
    bad = write_map(root, names(5)[3], pt_bytes(torch.zeros(2, 3, 4, 4)))
    summary = run(root, [shard], tmp_path / "l.zarr")
    assert LabelStore.open(tmp_path / "l.zarr").names() == []
    assert f"1 of 5 maps are refused, the first: {bad}: a class comes twice" in next(iter(summary.failures.values()))


def test_map_of_another_shape_than_the_first_is_refused(tmp_path: Path, shard: Path, root: Path) -> None:
    write_map(root, names(5)[3], pt_bytes(make_tensor(cells=(4, 5))))
    reason = run(root, [shard], tmp_path / "l.zarr").failures[shard]
    assert f"{names(5)[3]}.pt: K, H, W are (3, 4, 5), expected (3, 4, 4) as in the store" in reason


def test_one_map_is_never_given_to_two_samples(tmp_path: Path, root: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", members(["x/n00000001_1", "y/n00000001_1"]))
    reason = run(root, [shard], tmp_path / "l.zarr").failures[shard]
    assert "n00000001_1.pt: the map of two samples; the second is 'y/n00000001_1'" in reason


RESTARTING = ["000000", "000001"]


@pytest.fixture
def restarting(tmp_path: Path) -> list[Path]:
    """Two shards whose bare keys are the same, and a folder `bare` with one map for each of these keys."""
    for seed, key in enumerate(RESTARTING):
        write_map(tmp_path / "bare", f"x/{key}", seed=seed)
    return [write_tar(tmp_path / f"{name}.tar", members(RESTARTING)) for name in "ab"]


def test_keys_that_restart_in_each_shard_get_no_map_twice(tmp_path: Path, restarting: list[Path]) -> None:
    summary = run(tmp_path / "bare", restarting, tmp_path / "l.zarr")
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["a"]
    ((path, reason),) = summary.failures.items()
    assert path == restarting[1]
    assert "2 of 2 maps are refused" in reason
    assert "000000.pt: the map of two samples, '000000' and one of the group 'a'" in reason


def test_shard_that_failed_keeps_no_maps(tmp_path: Path, restarting: list[Path]) -> None:
    write_tar(restarting[0], members([*RESTARTING, "000002"]))
    summary = run(tmp_path / "bare", restarting, tmp_path / "l.zarr")
    assert list(summary.failures) == restarting[:1]
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["b"]


@pytest.mark.parametrize("second", [[0, 1], [1]], ids=["skipped", "not-named"])
def test_maps_of_groups_in_the_store_are_not_given_again(
    tmp_path: Path, restarting: list[Path], second: list[int]
) -> None:
    run(tmp_path / "bare", restarting[:1], tmp_path / "l.zarr")
    summary = run(tmp_path / "bare", [restarting[i] for i in second], tmp_path / "l.zarr")
    assert "the map of two samples, '000000' and one of the group 'a'" in next(iter(summary.failures.values()))
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["a"]


def test_groups_that_are_replaced_keep_no_maps(tmp_path: Path, restarting: list[Path]) -> None:
    run(tmp_path / "bare", restarting[:1], tmp_path / "l.zarr")
    for path, keys in zip(restarting, (["x/000000"], ["x/000001"]), strict=True):
        write_tar(path, members(keys))
    summary = run(tmp_path / "bare", restarting, tmp_path / "l.zarr", overwrite=True)
    assert (summary.committed_shards, summary.failures) == (2, {})


def test_undecodable_rows_and_keys_of_other_sources_keep_no_maps(
    tmp_path: Path, root: Path, restarting: list[Path]
) -> None:
    first = write_tar(tmp_path / "first.tar", [*members(["n00000001/n00000001_1"]), ("000000.jpg", b"no image")])
    run(root, [first], tmp_path / "l.zarr")
    assert run(tmp_path / "bare", restarting[1:], tmp_path / "l.zarr").failures == {}


def test_group_with_damaged_keys_stops_no_import_and_its_axes_count(
    tmp_path: Path, root: Path, restarting: list[Path]
) -> None:
    run(root, [write_tar(tmp_path / "first.tar", members(names(5)))], tmp_path / "l.zarr")
    (tmp_path / "l.zarr" / "first" / "keys" / "c" / "0").write_bytes(b"")
    assert run(tmp_path / "bare", restarting[1:], tmp_path / "l.zarr").failures == {}
    with pytest.raises(StoreMismatchError, match="was imported with --axes yx, now it is xy"):
        run(tmp_path / "bare", restarting[1:], tmp_path / "l.zarr", "xy")


def test_import_goes_shard_by_shard_and_lists_no_rows(
    tmp_path: Path, shard: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.input.plan.RowRef", None)
    assert run(root, [shard], tmp_path / "l.zarr").committed_shards == 1


def test_damaged_image_is_undecodable_only_where_it_has_no_map(tmp_path: Path, root: Path) -> None:
    bad = [("n00000001/n00000001_1.jpg", b"no image"), ("n00000001/n00000001_7.jpg", b"no image")]
    shard = write_tar(tmp_path / "a.tar", [*members(names(1)), *bad])
    summary = run(root, [shard], tmp_path / "l.zarr")
    assert [key for _, key, _ in summary.bad_images] == ["n00000001/n00000001_7"]
    assert set(LabelStore.open(tmp_path / "l.zarr").group("a").undecodable) == {2}


def test_image_larger_than_the_limit_is_not_read(
    tmp_path: Path, shard: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "MAX_IMAGE_BYTES", 100)
    ((_, reason),) = run(root, [shard], tmp_path / "l.zarr").failures.items()
    assert re.search(r"a\.tar: the image of 'n\d+/n\d+_0' has \d+ bytes, more than 100$", reason)


def test_store_with_undecodable_rows_comes_back_complete(tmp_path: Path, root: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [*members(names(2)), ("n00000001/x.jpg", b"no image")])
    run(root, [shard], tmp_path / "l.zarr")
    written = export(tmp_path / "l.zarr", tmp_path / "maps")
    assert (written.written, written.undecodable, written.failures) == (2, 1, [])
    assert run(tmp_path / "maps", [shard], tmp_path / "again.zarr", "xy").failures == {}
    assert set(LabelStore.open(tmp_path / "again.zarr").group("a").undecodable) == {2}


def test_interrupted_import_is_continued_by_running_it_again(tmp_path: Path, shard: Path, root: Path) -> None:
    other = write_tar(tmp_path / "b.tar", members(["n00000009/x", "n00000009/y"]))
    for name in "xy":
        write_map(root, f"n00000009/{name}")
    run(root, [shard], tmp_path / "l.zarr")
    again = run(root, [shard, other], tmp_path / "l.zarr")
    assert (again.committed_shards, again.skipped_shards, again.images) == (1, 1, 2)


def test_other_axes_are_refused_even_where_groups_are_skipped(tmp_path: Path, shard: Path, root: Path) -> None:
    run(root, [shard], tmp_path / "l.zarr", "yx")
    with pytest.raises(StoreMismatchError, match="a was imported with --axes yx, now it is xy; --overwrite"):
        run(root, [shard], tmp_path / "l.zarr", "xy")
    assert run(root, [shard], tmp_path / "l.zarr", "xy", overwrite=True).committed_shards == 1
    assert LabelStore.open(tmp_path / "l.zarr").group("a").commit.provenance["axes"] == "xy"


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_store_holds_groups_of_both_axes(tmp_path: Path, shard: Path, root: Path, overwrite: bool) -> None:
    other = write_tar(tmp_path / "b.tar", members(["n00000009/x"]))
    write_map(root, "n00000009/x")
    run(root, [shard], tmp_path / "l.zarr", "xy")
    with pytest.raises(StoreMismatchError, match=r"l\.zarr: a was imported with --axes xy, now it is yx; --overwrite"):
        run(root, [other], tmp_path / "l.zarr", "yx", overwrite=overwrite)
    assert LabelStore.open(tmp_path / "l.zarr").names() == ["a"]
    assert run(root, [other], tmp_path / "l.zarr", "xy", overwrite=overwrite).committed_shards == 1


def test_maps_of_another_architecture_do_not_join_a_store(tmp_path: Path, shard: Path, root: Path) -> None:
    run(root, [shard], tmp_path / "l.zarr")
    with pytest.raises(StoreMismatchError, match="another teacher"):
        run(root, [shard], tmp_path / "l.zarr", origin=Origin(architecture="other", num_classes=12))
    again = Origin(architecture="other", num_classes=12)
    assert run(root, [shard], tmp_path / "l.zarr", origin=again, overwrite=True).committed_shards == 1
    assert LabelStore.open(next(tmp_path.glob("l.zarr.replaced-*"))).names() == ["a"]  # nothing was deleted


def test_first_shape_says_why_there_is_none(tmp_path: Path, shard: Path) -> None:
    write_map(tmp_path / "other", "n09/x")
    with pytest.raises(LabelMapError, match=r"none of the 1 maps belongs to a sample of 1 shards, such as 'n00000000/"):
        first_shape([shard], open_source(tmp_path / "other"), num_classes=12)
    write_map(tmp_path / "bad", names(1)[0], b"hello")
    with pytest.raises(LabelMapError, match=rf"bad/{names(1)[0]}\.pt: "):
        first_shape([shard], open_source(tmp_path / "bad"), num_classes=12)


HOSTILE = ["../../x", "/abs", "a/../b", "nul\0", "x" * 300, "\x1b[31mred", "line\nbreak"]


def test_hostile_keys_write_nothing_and_are_counted(tmp_path: Path) -> None:
    schema, keys = make_schema(), (*names(2), *HOSTILE)
    labels = replace(make_labels(schema, len(keys)), keys=keys)
    StoreWriter.open(tmp_path / "l.zarr", schema).write("a", labels, tar=TAR, provenance={})
    before = set(tmp_path.rglob("*"))
    written = export(tmp_path / "l.zarr", tmp_path / "out" / "deep" / "maps")
    assert written.written == 2
    assert "7 of 9 rows not exported, the first: '../../x': a key that could lead out" in written.failures[0]
    new = {str(path.relative_to(tmp_path)) for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert new == {f"out/deep/maps/{name}.pt" for name in names(2)}


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_get_no_name(key: str) -> None:
    with pytest.raises(LabelMapError) as caught:
        Namer(make_schema()).name(key, 3)
    assert str(caught.value).isprintable()


def schema_with(class_names: tuple[str, ...]) -> StoreSchema:
    return Origin(num_classes=len(class_names), class_names=class_names).schema((1, 2, 2), "yx")


@pytest.mark.parametrize(
    ("key", "label", "folder"),
    [
        ("a/b/x", 0, "b"),
        ("n01440764_10026", 1, "n01440764"),
        ("x", 0, "goose, white"),
        ("x", 1, "crane (bird)"),
        ("x", 99, "99"),
    ],
)
def test_class_folder_is_the_keys_own_or_that_of_the_label(key: str, label: int, folder: str) -> None:
    namer = Namer(schema_with(("goose, white", "crane (bird)")))
    assert namer.name(key, label) == (folder, key.rpartition("/")[2])


@pytest.mark.parametrize("unfit", ["crane", "../x", "a.b", "/x", "a\\b", "\x1b[31m", "..", "x" * 300])
def test_class_names_that_do_not_fit_as_folders_are_replaced_by_class_ids(unfit: str) -> None:
    namer = Namer(schema_with(("crane", "goose", unfit)))
    assert [namer.name("x", label)[0] for label in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize(("key", "message"), [("x", "no class folder"), ("a.b/x", "cuts an image's path")])
def test_sample_that_the_official_trainer_would_not_find_gets_no_name(key: str, message: str) -> None:
    with pytest.raises(LabelMapError, match=message):
        Namer(make_schema()).name(key, -1)


def test_two_samples_of_one_file_stop_the_export_before_it_begins(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", members(["train/a/x", "val/a/x"]))
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    with pytest.raises(LabelMapError, match=r"two samples would be written to a/x\.pt"):
        export(tmp_path / "l.zarr", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_folder_that_is_not_empty_needs_overwrite(tmp_path: Path, shard: Path) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(SettingsError, match="maps: not empty; choose a new folder, or --overwrite"):
        export(tmp_path / "l.zarr", folder)
    assert export(tmp_path / "l.zarr", folder, overwrite=True).written == 5
    assert export(tmp_path / "l.zarr", folder, overwrite=True).written == 5
    assert (folder / "mine.txt").read_text() == "kept"
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("where", ["l.zarr", "l.zarr/new", "a.tar"])
def test_export_into_a_store_or_file_is_refused(tmp_path: Path, shard: Path, where: str) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    with pytest.raises(SettingsError, match=r"is inside a label store|not a folder"):
        export(tmp_path / "l.zarr", tmp_path / where, overwrite=True)


def test_folder_that_cannot_be_written_is_one_error(tmp_path: Path, shard: Path) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "n00000000").write_text("a file where a folder should be")
    with pytest.raises(StoreWriteError, match=r"maps/n00000000/n00000000_0\.pt: cannot be written"):
        export(tmp_path / "l.zarr", tmp_path / "maps", overwrite=True)


def test_linked_class_folder_is_refused_and_nothing_is_written_through_it(tmp_path: Path, shard: Path) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    for name in ("maps", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "maps" / "n00000000").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreWriteError, match="maps/n00000000: a link"):
        export(tmp_path / "l.zarr", tmp_path / "maps", overwrite=True)
    assert not list((tmp_path / "outside").iterdir())


def test_planted_links_are_replaced_and_not_followed(tmp_path: Path, shard: Path) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12))
    victim, maps = tmp_path / "victim", tmp_path / "maps"
    victim.write_text("kept")
    (maps / "n00000000").mkdir(parents=True)
    (maps / "n00000000" / "n00000000_0.pt").symlink_to(victim)
    assert export(tmp_path / "l.zarr", maps, overwrite=True).written == 5
    (maps / "n00000000" / ".n00000000_0.pt.partial").symlink_to(victim)
    assert export(tmp_path / "l.zarr", maps, overwrite=True).written == 5
    assert victim.read_text() == "kept"


def test_damaged_group_is_named_and_the_others_are_exported(tmp_path: Path, shard: Path) -> None:
    other = write_tar(tmp_path / "b.tar", members(["z/1", "z/2"]))
    for path in (shard, other):
        label_shard(tmp_path / "l.zarr", path, make_schema(num_classes=12))
    chunk = next(path for path in (tmp_path / "l.zarr" / "a" / "scores" / "c").rglob("*") if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[20] ^= 1
    chunk.write_bytes(data)
    written = export(tmp_path / "l.zarr", tmp_path / "maps")
    assert written.written == 2
    assert "scores" in written.failures[0]


def official_logits(tensor: torch.Tensor, crop: tuple[int, int, int, int], image: tuple[int, int]) -> Any:
    """What the official trainer makes of a map and a crop: (top, left, height, width) taken for x, y, width, height."""
    shares = torch.tensor([crop[0] / image[0], crop[1] / image[1], crop[2] / image[0], crop[3] / image[1]])
    box = torch.cat([shares[:2], shares[:2] + shares[2:]]) * tensor.shape[3] - 0.5
    dense = torch.zeros(12, *tensor.shape[2:]).scatter_(0, tensor[1].long(), tensor[0])
    return roi_align(dense[None], [box[None]], (1, 1))[0, :, 0, 0].numpy()


@pytest.mark.parametrize(("top", "left", "height", "width"), [(0, 100, 90, 60), (90, 10, 80, 110), (30, 40, 60, 60)])
def test_official_trainer_reads_exported_maps_right_only_if_they_are_x_first(
    tmp_path: Path, shard: Path, top: int, left: int, height: int, width: int
) -> None:
    label_shard(tmp_path / "l.zarr", shard, make_schema(num_classes=12, map_size=(6, 6)))
    image = (180, 240)  # height, width in pixels
    box = (left / 240, top / 180, (left + width) / 240, (top + height) / 180)
    row = LabelStore.open(tmp_path / "l.zarr").group("a").row(1)
    expected = pool_map(row.classes, row.scores, num_classes=12, box=box)
    found = {}
    for axes in ("xy", "yx"):
        export(tmp_path / "l.zarr", tmp_path / axes, axes)
        tensor = torch.load(tmp_path / axes / f"{row.key}.pt", weights_only=True)
        assert (tensor.dtype, tensor.is_contiguous()) == (torch.float32, True)
        found[axes] = official_logits(tensor, (top, left, height, width), image)
    np.testing.assert_allclose(found["xy"], expected, atol=1e-4)
    assert np.abs(found["yx"] - expected).max() > 0.1


def test_limits_of_the_official_trainer_are_listed() -> None:
    assert official_limits(make_schema(map_size=(15, 15)), "xy") == []
    assert [limit.split(",")[0].split(";")[0] for limit in official_limits(make_schema(num_classes=2000), "yx")] == [
        "it reads the crops' boxes with x and y exchanged",
        "it scales both sides of a box by one side of the map",
        "it knows 1000 classes",
    ]
