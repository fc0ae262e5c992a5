"""Images that rot while a run trains: left out by name, and resumed with after their shard was annotated again."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.annotate.__main__ import main
from store.errors import ImageError, RelabelError, RunFolderError
from store.shards.decode import decode_image
from store.shards.index import index_shard
from tests.builders.stores import make_members
from tests.builders.training import (
    Dataset,
    Recorder,
    assert_same_state,
    correct_labels,
    interrupted_run,
    label_shard,
    make_dataset,
    metrics,
    rot,
    run,
    write_tar,
)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path)


def test_rotten_image_is_left_out_and_named_at_each_epochs_end(data: Dataset, tmp_path: Path) -> None:
    rot(data.shards[0], 68)
    rot(data.shards[2], 5)
    for workers in (0, 2):
        reporter = Recorder()
        assert run(data, tmp_path / f"run{workers}", val=False, workers=workers, reporter=reporter).finished
        for report in reporter.epochs:
            assert len(report.left_out) == 2
            assert "train-0.tar: 's00068': " in "".join(report.left_out)
            assert "train-2.tar: 's02005': " in "".join(report.left_out)
    assert_same_state(tmp_path / "run0", tmp_path / "run2")
    lines = [line for line in metrics(tmp_path / "run0") if line["kind"] == "epoch"]
    assert [len(line["left_out"]) for line in lines] == [2, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_more_rotten_images_than_a_few_end_the_run(data: Dataset, tmp_path: Path, workers: int) -> None:
    for number in range(1, 12):
        rot(data.shards[0], number)
    with pytest.raises(
        ImageError, match=r"11 images cannot be decoded in epoch 1, .*; nothing was saved yet. The last: "
    ):
        run(data, tmp_path / "run", val=False, workers=workers)


def test_shard_without_any_image_to_take_the_place_ends_the_run(data: Dataset, tmp_path: Path) -> None:
    for number in range(10):
        rot(data.shards[1], number)
    with pytest.raises(RelabelError, match=r"train-1.tar: .*annotate it again"):
        run(data, tmp_path / "run", val=False)


def test_changed_bytes_that_still_decode_are_found_where_images_are_verified(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "jpegs.tar", make_members(32))
    label_shard(tmp_path / "labels", shard)
    sample, info, content = index_shard(shard).samples[7], shard.stat(), bytearray(shard.read_bytes())
    content[_harmless_byte(bytes(content[sample.offset : sample.offset + sample.length])) + sample.offset] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(info.st_atime_ns, info.st_mtime_ns))
    data = Dataset(shards=[shard], labels=tmp_path / "labels", val=[])
    left_out = []
    for verify in (False, True):
        reporter = Recorder()
        run(data, tmp_path / f"run{verify}", val=False, epochs=1, reporter=reporter, verify_images=verify)
        left_out.append(reporter.epochs[0].left_out)
    assert left_out[0] == ()
    assert "'img0007': its bytes have changed since it was annotated" in left_out[1][0]


def _harmless_byte(image: bytes) -> int:
    """The place of a byte of a JPEG whose last bit may flip without an error."""
    for place in range(len(image) // 2, len(image)):
        changed = bytearray(image)
        changed[place] ^= 1
        try:
            decode_image(bytes(changed))
        except RelabelError:
            continue
        return place
    raise AssertionError("every flip is an error")


def test_run_is_resumed_after_the_shard_of_a_rotten_image_was_annotated_again(data: Dataset, tmp_path: Path) -> None:
    for name in ("left", "again"):
        interrupted_run(data, tmp_path / name, at_step=4, val=False, checkpoint_interval=1)
    rot(data.shards[0], 20)
    run(data, tmp_path / "left", resume=True, val=False, checkpoint_interval=1)
    label_shard(data.labels, data.shards[0], undecodable=[20], overwrite=True)
    reporter = Recorder()
    run(data, tmp_path / "again", resume=True, val=False, checkpoint_interval=1, reporter=reporter)
    assert reporter.notes == [
        "1 image became undecodable since the run was started, and another stands in its place (rows train-0: 20)"
    ]
    assert_same_state(tmp_path / "left", tmp_path / "again")  # the order is that of the start
    assert [len(report.left_out) for report in reporter.epochs] == [1]
    settings = json.loads((tmp_path / "again" / "settings.json").read_text())
    assert settings["labels"]["left_out"] == {"train-0": [20]}
    assert settings["labels"]["undecodable"] == {}
    with pytest.raises(RunFolderError, match="not empty"):
        run(data, tmp_path / "again", val=False, checkpoint_interval=1)


@pytest.mark.parametrize("change", ["labels", "maps", "restored"])
def test_any_other_change_of_the_labels_is_refused(tmp_path: Path, change: str) -> None:
    data = make_dataset(tmp_path, undecodable=[3] if change == "restored" else [])
    interrupted_run(data, tmp_path / "run", at_step=2, val=False)
    if change == "labels":
        correct_labels(data.shards[0], [20], to=4)
        rot(data.shards[0], 21)
        label_shard(data.labels, data.shards[0], undecodable=[21], overwrite=True)
    else:
        label_shard(data.labels, data.shards[0], with_tail=change == "restored", overwrite=True)
    with pytest.raises(RunFolderError, match=r"labels: labels \(\.cls\), label maps or images have changed since then"):
        run(data, tmp_path / "run", resume=True, val=False)


def test_refreshed_times_do_not_keep_a_run_from_being_resumed(data: Dataset, tmp_path: Path) -> None:
    interrupted_run(data, tmp_path / "run", at_step=2, val=False)
    os.utime(data.shards[0], (1, 1))
    arguments = ["refresh", str(data.labels), "--shards", str(data.shards[0])]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert run(data, tmp_path / "run", resume=True, val=False).finished


@pytest.mark.parametrize("part", [{"groups": {"train-0": 7}}, {"undecodable": {"train-0": ["x"]}}, {"left_out": [1]}])
def test_damaged_lists_of_groups_are_one_line(data: Dataset, tmp_path: Path, part: dict[str, object]) -> None:
    interrupted_run(data, tmp_path / "run", at_step=2, val=False)
    file = tmp_path / "run" / "settings.json"
    values = json.loads(file.read_text())
    values["labels"] |= part
    file.write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=r"settings.json: damaged; restore it"):
        run(data, tmp_path / "run", resume=True, val=False)
