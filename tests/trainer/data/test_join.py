import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from store.errors import ChangedShardError, DamagedStoreError, JoinError, ShardError
from store.reader import LabelStore
from store.shards.images import ImageMember, read_images
from store.shards.index import index_shard
from store.shards.remote import RemoteShard
from tests.builders.stores import reseal
from tests.builders.training import (
    Dataset,
    correct_labels,
    label_shard,
    make_dataset,
    png,
    small_settings,
    write_shard,
    write_tar,
)
from trainer.data.checks import check_join
from trainer.data.join import join_shards, undecodable_rows
from trainer.data.table import read_group_rows
from trainer.settings import TrainSettings


def check(shards: list[Path], labels: Path, settings: TrainSettings | None = None) -> None:
    check_join(join_shards(shards, LabelStore.open(labels)), settings or small_settings(), num_classes=5)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_that_belong_to_their_labels_pass(dataset: Dataset, workers: int) -> None:
    check(dataset.shards, dataset.labels, small_settings(workers=workers, target="original"))


def test_rows_are_numbered_through_all_shards(dataset: Dataset) -> None:
    joined = join_shards(dataset.shards, LabelStore.open(dataset.labels))
    assert [(shard.group.name, shard.start) for shard in joined] == [("train-0", 0), ("train-1", 70), ("train-2", 80)]


def test_quarantined_rows_are_numbered_likewise(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (5, 6), undecodable=(1, 4))
    assert undecodable_rows(join_shards(data.shards, LabelStore.open(data.labels))) == (1, 4, 6, 9)


def test_shards_without_labels_are_counted_and_named(dataset: Dataset, tmp_path: Path) -> None:
    other = [write_shard(tmp_path / f"other-{i}.tar", 3) for i in range(2)]
    with pytest.raises(JoinError, match=r"no labels for 2 of 5 shards: '.*other-0.tar', '.*other-1.tar'; annotate"):
        check([*dataset.shards, *other], dataset.labels)
    with pytest.raises(JoinError, match="no shards to train on"):
        check([], dataset.labels)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [20, 60])
def test_the_error_for_a_shard_of_another_length_names_the_first_rows_that_differ(
    tmp_path: Path, count: int, workers: int
) -> None:
    data = make_dataset(tmp_path, (30,))
    write_shard(data.shards[0], count)
    first, of = min(count, 30), max(count, 30)
    place = r"(nothing|'s000\d\d' \(.*\)) in the shard and (nothing|'s000\d\d' \(.*\)) in the labels"
    rows = "; ".join(f"row {row} is {place}" for row in range(first, first + 3))
    message = rf"train-0.tar: differs from its labels .* in {of - first} of {of} rows: {rows}; \.\.\.; .*--overwrite"
    with pytest.raises(JoinError, match=message):
        check(data.shards, data.labels, small_settings(workers=workers))


def test_the_error_for_a_shard_with_other_keys_names_the_first_ones(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    write_shard(data.shards[0], 30, first=1)
    message = "; ".join(rf"row {i} is 's0000{i + 1}' .* in the shard and 's0000{i}' .* in the labels" for i in range(3))
    with pytest.raises(JoinError, match=f"in 30 of 30 rows: {message}; ") as caught:
        check(data.shards, data.labels)
    assert "row 3" not in str(caught.value)


def test_the_error_for_one_row_that_differs_names_only_it(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    members = [(f"s{number:05d}.png", png(number)) for number in range(30)]
    shard = write_tar(tmp_path / "one.tar", members)
    label_shard(data.labels, shard)
    write_tar(shard, [*members[:29], ("other.png", png(29))])
    message = (
        r"in 1 of 30 rows: row 29 is 'other' .* in the shard and 's00029' .* in the labels; its images are the same"
    )
    with pytest.raises(JoinError, match=message):
        check([shard], data.labels)


def test_a_shard_that_was_touched_but_agrees_is_still_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    with data.shards[0].open("ab") as file:
        file.write(bytes(10240))
    with pytest.raises(JoinError, match=r"train-0.tar: [0-9,]+ bytes, annotated with [0-9,]+; its images .* refresh"):
        check(data.shards, data.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_that_were_corrected_since_are_named_with_the_command_to_run(tmp_path: Path, workers: int) -> None:
    data = make_dataset(tmp_path, (30, 10))
    correct_labels(data.shards[0], [3, 4], to=7)
    message = (
        rf"train-0.tar: differs from its labels .*train-0 in 2 of 30 rows: row 3, 's00003', has label 7 in the shard "
        rf"and 3 in the labels; row 4.*; its images are the same: relabel-annotate refresh {data.labels} --shards "
        rf"{data.shards[0]}$"
    )
    with pytest.raises(JoinError, match=message):
        check(data.shards, data.labels, small_settings(workers=workers))


def test_image_of_the_same_size_that_was_exchanged_needs_the_teacher_again(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    sample = index_shard(data.shards[0]).samples[20]
    with data.shards[0].open("r+b") as file:
        file.seek(sample.offset + sample.length // 2)
        file.write(b"?")
    with pytest.raises(JoinError, match="in 1 of 30 rows: row 20, 's00020', has other bytes; annotate it again"):
        check(data.shards, data.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_shard_that_was_copied_is_hashed_and_passes_and_an_unchanged_one_is_not_read(
    tmp_path: Path, workers: int
) -> None:
    data, notes = make_dataset(tmp_path, (30, 10)), list[str]()
    joined = join_shards(data.shards, LabelStore.open(data.labels))
    check_join(joined, small_settings(workers=workers), num_classes=5, note=notes.append)
    assert notes == []
    os.utime(data.shards[1], (1, 1))
    check_join(joined, small_settings(workers=workers), num_classes=5, note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("1 shard had another time than when annotated, and the same images and labels")
    # Of several ranks, one hashes it.
    check_join(joined, small_settings(), num_classes=5, note=notes.append, rank=0, world=2)
    assert len(notes) == 1


def test_time_in_whole_seconds_is_compared_in_seconds(tmp_path: Path) -> None:
    data, notes = make_dataset(tmp_path, (30,)), list[str]()
    seconds = data.shards[0].stat().st_mtime_ns // 10**9
    os.utime(data.shards[0], ns=(0, seconds * 10**9))  # as rsync to an older disk
    joined = join_shards(data.shards, LabelStore.open(data.labels))
    check_join(joined, small_settings(), num_classes=5, note=notes.append)
    assert notes == []


def test_the_error_for_a_truncated_shard_says_that_it_is_damaged(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    data.shards[0].write_bytes(data.shards[0].read_bytes()[:20_000])
    with pytest.raises(ShardError, match=r"train-0.tar: ends at byte 20000.*truncated"):
        check(data.shards, data.labels)


def test_a_shard_that_vanished_is_named(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (30,))
    joined = join_shards(data.shards, LabelStore.open(data.labels))
    data.shards[0].unlink()
    with pytest.raises(JoinError, match=r"train-0.tar: cannot be read: No such file"):
        check_join(joined, small_settings(), num_classes=5)


def test_a_read_that_fails_is_reported_without_downloading_the_shard(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[Path] = []

    def download(_: RemoteShard, file: Path) -> None:
        downloads.append(file)
        shutil.copy(dataset.shards[0], file)

    def refuse(*_: object) -> bytes:
        raise OSError(13, "the server refuses")

    monkeypatch.setattr(RemoteShard, "stat", lambda _: dataset.shards[0].stat())
    monkeypatch.setattr(RemoteShard, "read_range", refuse)
    monkeypatch.setattr(RemoteShard, "download", download)
    joined = join_shards([RemoteShard("http://127.0.0.1:1/train-0.tar")], LabelStore.open(dataset.labels))
    with pytest.raises(JoinError, match=r"train-0\.tar: cannot be read: the server refuses \(the image of 's00000'\)$"):
        check_join(joined, small_settings(workers=0), num_classes=5)
    assert not downloads


@pytest.mark.parametrize("needs", [{"target": "original"}, {"original_weight": 0.5}])
def test_original_labels_must_be_there_where_they_are_needed(tmp_path: Path, needs: dict[str, object]) -> None:
    shard = write_shard(tmp_path / "bare.tar", 8, labelled=False)
    label_shard(tmp_path / "labels", shard, undecodable=(0,))
    check([shard], tmp_path / "labels")
    with pytest.raises(
        JoinError, match=r"bare.tar: 7 samples cannot .*; 's00001' has no .cls label: use another target"
    ):
        check([shard], tmp_path / "labels", small_settings(**needs))


def test_original_labels_beyond_the_classes_are_refused(dataset: Dataset) -> None:
    joined = join_shards(dataset.shards, LabelStore.open(dataset.labels))
    with pytest.raises(JoinError, match="'s00004' has label 4 of 4 classes"):
        check_join(joined, small_settings(target="original"), num_classes=4)


# Reading one image.

LONG = "a" * 90 + "/" + "b" * 60
NAMES = ("plain", "Folder.v1/UPPER", LONG, "naïve-猫", "c" * 99, "d" * 96)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("key", NAMES)
def test_images_are_found_under_every_kind_of_name(tmp_path: Path, key: str, format: int) -> None:
    members = [(f"{key}.JPG", png(1)), (f"{key}.cls", b"1")]
    try:
        shard = write_tar(tmp_path / "s.tar", members, format=format)
    except ValueError:
        pytest.skip("ustar cannot hold this name")
    label_shard(tmp_path / "labels", shard)
    group = LabelStore.open(tmp_path / "labels").group("s")
    assert next(read_images([(shard, read_group_rows(group).member(0))])) == png(1)


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_another_image_under_an_alike_name_is_refused(tmp_path: Path, key: str, format: int) -> None:
    """Even where the header only holds the part of the name that they share."""
    other = key[:-1] + chr(ord(key[-1]) + 1)
    data = png(1)
    shard = write_tar(tmp_path / "s.tar", [(f"{other}.png", data)], format=format)
    sample = index_shard(shard).samples[0]
    right = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    member = ImageMember(row=7, key=key, offset=sample.offset, length=sample.length, digest=right ^ 1)
    with pytest.raises(ChangedShardError, match=r"s.tar: .* annotated as .* \(row 7\), but '.*'; .*--overwrite"):
        next(read_images([(shard, member)]))


@pytest.mark.parametrize("shift", [-512, 512, -10_000, 1_000_000, 2**63])
def test_a_byte_range_that_holds_no_such_image_is_refused(tmp_path: Path, shift: int) -> None:
    shard = write_shard(tmp_path / "s.tar", 2)
    sample = index_shard(shard).samples[0]
    member = ImageMember(row=0, key=sample.key, offset=sample.offset + shift, length=sample.length, digest=0)
    with pytest.raises(ChangedShardError, match=r"'s00000' \(row 0\), but no image of that size"):
        next(read_images([(shard, member)]))


@pytest.mark.parametrize("more", [-1, 1, 2**40, 2**63])
def test_an_image_of_another_length_is_refused(tmp_path: Path, more: int) -> None:
    """However long the labels say it is: no more than the shard is read."""
    shard = write_shard(tmp_path / "s.tar", 2)
    sample = index_shard(shard).samples[0]
    member = ImageMember(row=0, key=sample.key, offset=sample.offset, length=sample.length + more, digest=0)
    with pytest.raises(ChangedShardError, match="but no image of that size"):
        next(read_images([(shard, member)]))


def test_a_label_member_is_not_taken_for_an_image(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", [("a.cls", b"12345"), ("a.png", png(0))])
    member = ImageMember(row=0, key="a", offset=512, length=5, digest=0)
    with pytest.raises(ChangedShardError, match=r"but 'a\.cls'"):
        next(read_images([(shard, member)]))


def test_the_image_is_read_at_its_own_offset_in_a_copy(dataset: Dataset, tmp_path: Path) -> None:
    """Copying a shard changes its mtime, which is no reason to refuse it."""
    for shard in dataset.shards:
        shutil.copyfile(shard, tmp_path / shard.name)
    check([tmp_path / shard.name for shard in dataset.shards], dataset.labels)


def test_groups_of_earlier_releases_that_were_exchanged_are_found_by_an_image_at_either_end(tmp_path: Path) -> None:
    """Records without a name, and shards with the same keys, sizes and offsets."""
    data = make_dataset(tmp_path, (3,))
    images = [png(number) for number in range(3)]
    others = [images[0], images[1], images[2][:-1] + bytes([images[2][-1] ^ 1])]  # the last one differs
    shards = []
    for name, files in (("a", images), ("b", others)):
        members = [(f"s{number:05d}.png", image) for number, image in enumerate(files)]
        shards.append(write_tar(tmp_path / f"{name}.tar", members))
        label_shard(data.labels, shards[-1])
    shutil.rmtree(data.labels / "a")
    (data.labels / "b").rename(data.labels / "a")
    with pytest.raises(DamagedStoreError, match="holds the labels of the shard 'b'"):
        check(shards[:1], data.labels)
    reseal(data.labels, {"group": None})
    with pytest.raises(JoinError, match=r"a\.tar: differs from its labels .* in 1 of 3 rows.*s00002"):
        check(shards[:1], data.labels)
