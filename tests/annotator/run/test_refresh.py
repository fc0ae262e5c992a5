"""Corrected labels of shards, taken over without the teacher."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.annotate.__main__ import main
from store.cli.main import main as store_main
from store.reader import LabelStore
from store.shards.index import index_shard
from store.storage.local import LocalBackend
from tests.builders.training import (
    Dataset,
    correct_labels,
    make_dataset,
    png,
    small_settings,
    write_shard,
    write_tar,
)
from trainer.data.checks import check_join
from trainer.data.join import join_shards


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path, (30, 10), undecodable=(2,))


def refresh(data: Dataset, *shards: Path) -> Result:
    patterns = [part for shard in shards or data.shards for part in ("--shards", str(shard))]
    return CliRunner().invoke(main, ["refresh", str(data.labels), *patterns])


def objects(data: Dataset, name: str = "train-0") -> dict[str, str]:
    return {path: record.sha256 for path, record in LabelStore.open(data.labels).group(name).commit.objects.items()}


def check(data: Dataset) -> None:
    """The shards belong to their labels, and the store is sound."""
    check_join(join_shards(data.shards, LabelStore.open(data.labels)), small_settings(), num_classes=5)
    arguments = ["verify", str(data.labels), "--deep", "--shards", str(data.shards[0].with_name("train-*.tar"))]
    result = CliRunner().invoke(store_main, arguments)
    assert result.exit_code == 0, result.output


def test_corrected_labels_are_taken_over_and_the_maps_stay(data: Dataset) -> None:
    before = objects(data)
    correct_labels(data.shards[0], [3, 4], to=2)
    result = refresh(data)
    assert result.exit_code == 0, result.output
    assert f"refreshed {data.shards[0]}: 2 labels changed" in result.stdout
    assert "1 of 2 shards refreshed, 2 labels changed; unchanged: 1, not annotated yet: 0" in result.stdout
    group = LabelStore.open(data.labels).group("train-0")
    assert group.labels.tolist()[:6] == [0, 1, 2, 2, 2, 0]
    assert {path for path, digest in objects(data).items() if digest != before[path]} == {"targets/c/0"}
    assert set(group.undecodable) == {2}
    check(data)
    assert "0 of 2 shards refreshed" in refresh(data).stdout


def test_shards_packed_again_are_taken_over(data: Dataset) -> None:
    members = [(f"renamed{number:05d}.png", png(number)) for number in range(30)]
    write_tar(data.shards[0], members)
    result = refresh(data)
    assert "30 labels changed" in result.stdout
    group = LabelStore.open(data.labels).group("train-0")
    assert group.keys[2] == "renamed00002"
    assert group.commit.undecodable[0].key == "renamed00002"
    assert (group.labels == -1).all()
    assert group.offsets.tolist() == [[s.offset, s.length] for s in index_shard(data.shards[0]).samples]
    check(data)


def test_time_of_a_copied_shard_is_recorded_and_no_object_changes(data: Dataset) -> None:
    before = objects(data)
    os.utime(data.shards[0], (1, 1))
    assert "1 of 2 shards refreshed, 0 labels changed" in refresh(data).stdout
    assert objects(data) == before
    assert LabelStore.open(data.labels).group("train-0").commit.tar.mtime_ns == 10**9


@pytest.mark.parametrize("change", ["other image", "fewer", "more", "damaged"])
def test_shards_with_other_images_are_refused_by_name_and_the_others_refreshed(data: Dataset, change: str) -> None:
    before = objects(data)
    write_shard(data.shards[0], {"fewer": 29, "more": 31}.get(change, 30), first=int(change == "other image"))
    if change == "damaged":
        os.truncate(data.shards[0], 3000)
    correct_labels(data.shards[1], [1000], to=4)
    result = refresh(data)
    assert result.exit_code == 1
    assert f"refused   {data.shards[0]}: " in result.stdout
    wanted = "truncated" if change == "damaged" else "images are not those that were annotated"
    assert wanted in result.stdout
    assert f"refreshed {data.shards[1]}: 1 label changed" in result.stdout
    assert "error: 1 of 2 shards refused" in result.stderr
    assert objects(data) == before


def test_shards_without_labels_are_counted(data: Dataset, tmp_path: Path) -> None:
    new = write_shard(tmp_path / "new.tar", 3)
    result = refresh(data, *data.shards, new)
    assert (result.exit_code, result.stdout) == (
        0, f"not annotated yet: {new}\n0 of 3 shards refreshed, 0 labels changed; unchanged: 2, not annotated yet: 1\n"
    )  # fmt: skip


def test_shard_that_another_process_annotates_is_refused(data: Dataset) -> None:
    correct_labels(data.shards[0], [3], to=2)
    with LocalBackend(data.labels).lease("train-0"):
        assert "is being annotated by another process" in refresh(data).stdout
    assert refresh(data).exit_code == 0


def test_audit_says_that_labels_have_changed_and_what_to_run(data: Dataset) -> None:
    correct_labels(data.shards[0], [3], to=2)
    os.utime(data.shards[1], (1, 1))  # the same bytes: nothing to say
    arguments = ["audit", str(data.labels), "--shards", str(data.shards[0].with_name("train-*.tar"))]
    result = CliRunner().invoke(store_main, arguments)
    assert result.exit_code == 0, result.output
    [note] = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert "in 1 of 30 rows: row 3, 's00003', has label 2 in the shard and 3 in the labels" in note
    assert f"relabel-annotate refresh {data.labels} --shards {data.shards[0]}" in note
    arguments[0] = "verify"
    assert "1 labels (.cls) have changed" in CliRunner().invoke(store_main, arguments).stdout


def test_annotator_says_that_a_changed_shard_may_be_refreshed(data: Dataset) -> None:
    correct_labels(data.shards[0], [3], to=2)
    arguments = ["status", str(data.labels), "--shards", str(data.shards[0])]
    result = CliRunner().invoke(main, arguments)
    assert f"if its images are the same, relabel-annotate refresh {data.labels} --shards" in result.stdout
