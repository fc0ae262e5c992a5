"""Batches of crops: the same for every number of ranks and workers, from any step on."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from store.errors import ChangedShardError, DamagedStoreError, SettingsError, ShardError
from store.group import LabelGroup
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.shards.index import index_shard
from tests.builders.training import Dataset, assert_same, label_shard, make_dataset, rot, small_settings, write_shard
from trainer.batch import Batch, join_parts
from trainer.data.batches import SampleStream, load_batches, make_order
from trainer.data.checks import check_join, check_rows
from trainer.data.crops import crop_and_resize, draw_crop, sample_rng
from trainer.data.join import join_shards
from trainer.data.samples import SampleReader
from trainer.settings import TrainSettings

# On a machine of one core torch advises against two workers, as a warning.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def stream(
    data: Dataset, settings: TrainSettings, *, start_step: int = 0, rank: int = 0, world: int = 1
) -> SampleStream:
    joined = join_shards(data.shards, LabelStore.open(data.labels))
    table = check_join(joined, settings, num_classes=5)
    order = make_order(joined, settings, world=world)
    return SampleStream(joined, table, order, settings, start_step=start_step, rank=rank, world=world)


def batches(data: Dataset, *, start_step: int = 0, rank: int = 0, world: int = 1, **changes: Any) -> list[Batch]:
    settings = small_settings(**changes)
    part = stream(data, settings, start_step=start_step, rank=rank, world=world)
    return list(load_batches(part, torch.device("cpu")))


def rows_of(data: Dataset, **changes: Any) -> list[list[int]]:
    """The row numbers of every batch, one epoch after the other."""
    settings = small_settings(**changes)
    order = stream(data, settings).order
    return [rows_n.tolist() for epoch in range(settings.epochs) for rows_n in order.batches(epoch)]


def test_batches_have_the_promised_shapes_and_types(dataset: Dataset) -> None:
    batch = batches(dataset)[0]
    shapes = {
        "images": ((32, 3, 32, 32), torch.uint8), "boxes": ((32, 4), torch.float32),
        "classes": ((32, 2, 3, 4), torch.uint16), "scores": ((32, 2, 3, 4), torch.float16),
        "labels": ((32,), torch.int64), "flips": ((32,), torch.bool),
    }  # fmt: skip
    for name, (shape, dtype) in shapes.items():
        assert (tuple(getattr(batch, name).shape), getattr(batch, name).dtype) == (shape, dtype), name


def test_every_row_comes_with_its_own_image_crop_and_labels(dataset: Dataset) -> None:
    """Each column against an independent way to it: the strict index, the reader, the crop's own key."""
    samples = [(path, i, sample) for path in dataset.shards for i, sample in enumerate(index_shard(path).samples)]
    settings, store = small_settings(), LabelStore.open(dataset.labels)
    labels = {name: store.group(name).read() for name in store.names()}
    for epoch_step, (batch, rows) in enumerate(zip(batches(dataset), rows_of(dataset), strict=True)):
        for i, row in enumerate(rows):
            path, place, sample = samples[row]
            data = path.read_bytes()[sample.offset : sample.offset + sample.length]
            rng = sample_rng(settings.seed, epoch_step // 4, row)
            box = draw_crop(rng, 20, 24, scale=settings.crop_scale, ratio=settings.crop_ratio)
            pixels = crop_and_resize(decode_image(data), box, 32, "bilinear")
            assert np.array_equal(batch.images[i].permute(1, 2, 0).numpy(), pixels)
            assert batch.boxes[i].tolist() == pytest.approx(box.normalised(20, 24))
            assert np.array_equal(batch.classes[i].numpy(), labels[path.stem].classes[place])
            assert np.array_equal(batch.scores[i].numpy(), labels[path.stem].scores[place])
            assert batch.labels[i] == sample.label
            assert bool(batch.flips[i]) == (rng.random() < 0.5)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_are_the_same_for_every_number_of_workers(dataset: Dataset, workers: int) -> None:
    """Three workers own unequal numbers of the 32 streams."""
    pairs = zip(batches(dataset, workers=workers), batches(dataset), strict=True)
    for ours, theirs in pairs:
        assert_same(ours, theirs)


def global_batches(data: Dataset, workers_of: Sequence[int], *, start_step: int = 0, **changes: Any) -> list[Batch]:
    """The batches of as many ranks as there are numbers of workers, put together."""
    world = len(workers_of)
    parts = [
        batches(data, rank=rank, world=world, workers=workers, start_step=start_step, **changes)
        for rank, workers in enumerate(workers_of)
    ]
    assert all(len(part.images) == 32 // world for rank in parts for part in rank)
    return [join_parts(of_ranks) for of_ranks in zip(*parts, strict=True)]


@pytest.mark.parametrize("workers_of", [(0, 0), (3, 2), (0, 1, 0, 0)])
def test_the_ranks_batches_together_are_the_batch_of_one_rank(dataset: Dataset, workers_of: Sequence[int]) -> None:
    """Three workers own unequal numbers of a rank's 16 streams."""
    for ours, theirs in zip(global_batches(dataset, workers_of), batches(dataset), strict=True):
        assert_same(ours, theirs)


def test_resuming_on_another_topology_gives_exactly_the_remainder(dataset: Dataset) -> None:
    expected = batches(dataset)[5:]
    for ours, theirs in zip(global_batches(dataset, (0, 2), start_step=5), expected, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("start_step", [1, 4, 7])
def test_starting_at_a_step_gives_exactly_the_remainder(dataset: Dataset, start_step: int) -> None:
    expected = batches(dataset)[start_step:]
    for ours, theirs in zip(batches(dataset, start_step=start_step), expected, strict=True):
        assert_same(ours, theirs)


def test_no_sample_comes_twice_in_an_epoch_and_crops_differ_between_epochs(dataset: Dataset) -> None:
    both, rows = batches(dataset), rows_of(dataset)
    epochs = [torch.tensor(rows[i : i + 4]).flatten() for i in (0, 4)]
    assert [len(set(rows.tolist())) for rows in epochs] == [128, 128]
    boxes = [
        torch.cat([batch.boxes for batch in both[i : i + 4]])[rows.argsort()]
        for i, rows in zip((0, 4), epochs, strict=True)
    ]
    assert (boxes[0] != boxes[1]).any(1).sum() > 120


def test_quarantined_rows_are_left_out(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40, 30), undecodable=(3, 17))
    rows = {row for batch in rows_of(data, batch_size=22, epochs=1) for row in batch}
    assert set(range(70)) - rows == {3, 17, 43, 57}
    assert sum(len(batch.images) for batch in batches(data, batch_size=22, epochs=1)) == 66


def test_tails_are_not_read(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40,))
    part = stream(data, small_settings())
    shutil.rmtree(data.labels / "train-0" / "tail")
    assert len(next(load_batches(part, torch.device("cpu"))).images) == 32


def test_groups_with_and_without_a_tail_go_together(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40,))
    shard = write_shard(tmp_path / "more.tar", 24, first=500)
    label_shard(data.labels, shard, with_tail=False)
    both = Dataset(shards=[*data.shards, shard], labels=data.labels, val=data.val)
    assert len(batches(both, workers=2)) == 4


def test_flip_off_flips_nothing(dataset: Dataset) -> None:
    assert not any(batch.flips.any() for batch in batches(dataset, flip=False))


def test_label_chunks_are_decoded_about_once_an_epoch(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[str, int]] = []
    read = LabelGroup.read

    def counted(group: Any, start: int, stop: int, *, with_tail: bool) -> Any:
        reads.append((group.name, start))
        return read(group, start, stop, with_tail=with_tail)

    monkeypatch.setattr("store.reader.LabelGroup.read", counted)
    batches(dataset, epochs=1)
    assert sorted(reads) == [("train-0", 0), ("train-0", 64), ("train-1", 0), ("train-2", 0)]


def test_the_chunk_cache_stays_within_its_rows(dataset: Dataset) -> None:
    joined = join_shards(dataset.shards, LabelStore.open(dataset.labels))
    reader = SampleReader(joined, check_rows(joined, num_classes=None, workers=0), cached_rows=70)
    for row in (0, 65, 75, 100, 0):
        assert len(list(reader.read(np.array([row])))) == 1
    assert reader._chunks._rows <= 70
    assert len(reader._chunks._kept) == 1


@pytest.mark.parametrize("workers", [0, 2])
class TestErrorsArriveAsTheyWereRaised:
    def first_error(self, data: Dataset, workers: int) -> None:
        for _ in batches(data, workers=workers):
            pass

    def test_an_image_that_was_replaced(self, tmp_path: Path, workers: int) -> None:
        data = make_dataset(tmp_path, (40,))
        path, sample = data.shards[0], index_shard(data.shards[0]).samples[11]
        content = bytearray(path.read_bytes())
        content[sample.offset - 512 : sample.offset - 512 + 6] = b"q00011"
        header = content[sample.offset - 512 : sample.offset]
        header[148:156] = b" " * 8
        content[sample.offset - 512 + 148 : sample.offset - 512 + 156] = f"{sum(header):06o}\0 ".encode()
        info = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))  # else the shard is refused before
        message = (
            r"train-0.tar: does not hold the image that was annotated as 's00011' \(row 11\), but 'q00011.png'; give"
        )
        with pytest.raises(ChangedShardError, match=message) as caught:
            self.first_error(data, workers)
        assert "\n" not in str(caught.value)

    def test_an_image_that_no_longer_decodes(self, tmp_path: Path, workers: int) -> None:
        data = make_dataset(tmp_path, (40,))
        rot(data.shards[0], 5)
        [left_out] = {message for batch in batches(data, workers=workers) for message in batch.left_out}
        assert re.search(r"train-0.tar: 's00005': .*; it could be decoded when it was annotated", left_out)
        assert "\n" not in left_out

    def test_labels_that_were_damaged(self, tmp_path: Path, workers: int) -> None:
        data = make_dataset(tmp_path, (40,))
        chunk = next((data.labels / "train-0" / "scores" / "c").rglob("0"))
        while chunk.is_dir():
            chunk = next(chunk.iterdir())
        content = bytearray(chunk.read_bytes())
        content[20] ^= 1
        chunk.write_bytes(content)
        with pytest.raises(DamagedStoreError, match=r"train-0.scores.*damaged") as caught:
            self.first_error(data, workers)
        assert "\n" not in str(caught.value)


def test_a_shard_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40,))
    loading = load_batches(stream(data, small_settings()), torch.device("cpu"))
    next(loading)
    data.shards[0].unlink()
    with pytest.raises(ShardError, match=r"train-0.tar: cannot be read: No such file"):
        next(loading)


@pytest.mark.parametrize(
    ("size", "world", "workers", "message"),
    [
        (36, 1, 37, "workers=37: a batch_size of 36 divides among at most 36; choose fewer workers or a larger batch"),
        (
            36,
            2,
            19,
            "workers=19: a batch_size of 36 divides among at most 18 for each of 2 ranks; choose fewer",
        ),
        (
            64,
            8,
            9,
            "workers=9: a batch_size of 64 divides among at most 8 for each of 8 ranks; choose fewer workers or",
        ),
        (
            36,
            5,
            0,
            "5 ranks cannot share a batch_size of 36 equally, which divides into 36; start 1, 2, 3, 4, 6, 9, 12, 18, "
            "36 processes, or choose another batch_size$",
        ),
        (64, 3, 0, "3 ranks cannot share a batch_size of 64 .* 64; start 1, 2, 4, 8, 16, 32, 64 processes"),
    ],
)
def test_more_ranks_and_workers_than_a_batch_divides_among_are_refused(
    dataset: Dataset, size: int, world: int, workers: int, message: str
) -> None:
    joined = join_shards(dataset.shards, LabelStore.open(dataset.labels))
    with pytest.raises(SettingsError, match=message):
        make_order(joined, small_settings(batch_size=size, workers=workers), world=world)


class TestSeveralCropsOfEachImage:
    def test_a_batch_has_so_many_adjacent_crops_of_each_of_its_images(self, dataset: Dataset) -> None:
        ours, rows = batches(dataset, crops_per_image=4), rows_of(dataset, crops_per_image=4)
        store = LabelStore.open(dataset.labels)
        maps = np.concatenate([store.group(path.stem).read().scores for path in dataset.shards])
        assert len(ours) == len(rows) == 8  # an epoch has as many crops as with one crop of each
        for batch, of_batch in zip(ours, rows, strict=True):
            assert len(batch.images) == 32
            assert len(set(of_batch)) == 8
            assert np.array_equal(batch.scores.numpy(), maps[np.repeat(of_batch, 4)])
            assert len({tuple(box) for box in batch.boxes.tolist()}) > 24
            assert 4 < batch.flips.sum() < 28

    def test_the_first_crop_of_an_image_is_that_of_a_batch_with_one_each(self, dataset: Dataset) -> None:
        """A crop depends on seed, epoch, row and its number alone."""
        settings = small_settings(crops_per_image=2)
        [batch, *_], [rows, *_] = batches(dataset, crops_per_image=2), rows_of(dataset, crops_per_image=2)
        for i, row in enumerate(rows):
            rng = sample_rng(settings.seed, 0, row)
            for crop in range(2):
                box = draw_crop(rng, 20, 24, scale=settings.crop_scale, ratio=settings.crop_ratio)
                assert batch.boxes[2 * i + crop].tolist() == pytest.approx(box.normalised(20, 24))
                assert bool(batch.flips[2 * i + crop]) == (rng.random() < 0.5)

    @pytest.mark.parametrize("workers_of", [(3,), (0, 2), (0, 1, 0, 0)])
    def test_every_topology_reads_the_same_batches_from_any_step_on(
        self, dataset: Dataset, workers_of: Sequence[int]
    ) -> None:
        ours = global_batches(dataset, workers_of, start_step=3, crops_per_image=4)
        for batch, expected in zip(ours, batches(dataset, crops_per_image=4)[3:], strict=True):
            assert_same(batch, expected)

    def test_an_undecodable_image_is_noted_once(self, tmp_path: Path) -> None:
        data = make_dataset(tmp_path, (40,))
        rot(data.shards[0], 5)
        left_out = [message for batch in batches(data, crops_per_image=4, epochs=4) for message in batch.left_out]
        assert 0 < len(left_out) <= 2

    def test_one_image_of_a_rank_cannot_be_mixed(self, dataset: Dataset) -> None:
        joined = join_shards(dataset.shards, LabelStore.open(dataset.labels))
        many = {"crops_per_image": 8, "workers": 0}
        make_order(joined, small_settings(**many), world=4)
        make_order(joined, small_settings(**many, cutmix_prob=0.5), world=2)
        message = "crops_per_image=8: a rank has one image in a batch of 32 crops, and CutMix and mixup need another"
        with pytest.raises(SettingsError, match=message):
            make_order(joined, small_settings(**many, mixup_prob=0.5), world=4)

    def test_more_workers_than_images_are_refused(self, dataset: Dataset) -> None:
        message = "workers=5: a batch_size of 32 with crops_per_image=8 divides among at most 4; choose fewer workers"
        with pytest.raises(SettingsError, match=message):
            batches(dataset, crops_per_image=8, workers=5)


def test_fewer_samples_than_a_batch_are_refused(dataset: Dataset) -> None:
    with pytest.raises(SettingsError, match="128 usable samples are fewer than one batch of 256"):
        batches(dataset, batch_size=256)
