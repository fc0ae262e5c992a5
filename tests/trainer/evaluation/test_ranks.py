"""Evaluation by several real processes that agree over gloo."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from store.errors import ImageError, PeerError
from store.shards.index import ShardIndex
from tests.builders.ranks import on_ranks
from tests.builders.training import NUM_CLASSES, png, small_settings, write_shard, write_tar
from trainer.distributed import Ranks
from trainer.evaluation.evaluate import Accuracy, evaluate, open_val, score
from trainer.evaluation.real import IMAGES
from trainer.student.device import resolve_device

SETTINGS = resolve_device(small_settings(batch_size=8))


class Brightest(nn.Module):
    """Logits that depend on the image: each of nine classes is a fixed mix of its channels."""

    def forward(self, images: Tensor) -> Tensor:
        mix = torch.linspace(-25, 25, 27).view(3, 9).sin()
        return images.mean((2, 3)) @ mix


def counts(val: tuple[ShardIndex, ...], ranks: Ranks) -> tuple[list[list[int]], list[int]]:
    real = (frozenset({1}), frozenset(), frozenset({0, 3}), *[frozenset({0, 1, 2})] * (IMAGES - 3))
    tally = score(Brightest(), val, SETTINGS, ranks, lambda: False, real=real)
    assert tally is not None
    return tally.per_class_L3.tolist(), tally.real_2.tolist()


def open_numbered(folder: Path, count: int) -> tuple[ShardIndex, ...]:
    """One shard for every five samples, keyed as ImageNet's validation images."""
    shards: list[Path] = []
    for first in range(0, count, 5):
        members = [
            (f"ILSVRC2012_val_{i + 1:08}.{extension}", data)
            for i in range(first, min(first + 5, count))
            for extension, data in (("png", png(i)), ("cls", str(i % NUM_CLASSES).encode()))
        ]
        shards.append(write_tar(folder / f"val-{first}.tar", members))
    return open_val(shards, NUM_CLASSES)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 8, 23])
def test_ranks_together_count_what_one_process_counts(tmp_path: Path, world: int, count: int) -> None:
    """Also with fewer images than ranks, or than one batch for each rank."""
    val = open_numbered(tmp_path, count)
    alone = counts(val, Ranks())
    assert sum(row[0] for row in alone[0]) == count
    assert on_ranks(world, lambda ranks: counts(val, ranks), tmp_path) == [alone] * world


def test_the_student_of_these_tests_is_sometimes_right_and_sometimes_wrong(tmp_path: Path) -> None:
    per_class, (real_samples, real_hits) = counts(open_numbered(tmp_path, 23), Ranks())
    assert 0 < sum(row[1] for row in per_class) < sum(row[2] for row in per_class) < 23
    assert 0 < real_hits < real_samples == 22


def test_stopping_one_rank_stops_all_before_the_next_batch(tmp_path: Path) -> None:
    val = open_val([write_shard(tmp_path / "val.tar", 40)], NUM_CLASSES)

    def stopped_early(ranks: Ranks) -> tuple[Accuracy | None, int]:
        rounds: list[int] = []
        asked = iter([False, False, ranks.rank == 1])
        tally = score(
            Brightest(), val, SETTINGS, ranks, lambda: next(asked), progress=lambda done, _: rounds.append(done)
        )
        assert tally is None
        return evaluate(Brightest(), val, SETTINGS, ranks, lambda: ranks.rank == 1), len(rounds)

    assert on_ranks(2, stopped_early, tmp_path) == [(None, 2)] * 2


@pytest.mark.parametrize(("damaged", "rounds"), [(1, 1), (39, 5)])
def test_damaged_image_of_one_rank_is_reported_by_all_within_a_batch(tmp_path: Path, damaged: int, rounds: int) -> None:
    members = [(f"s{i:02}.png", png(i) if i != damaged else b"\x89PNG no") for i in range(40)]
    labelled = [part for name, data in members for part in ((name, data), (f"{name[:3]}.cls", b"0"))]
    val = open_val([write_tar(tmp_path / "val.tar", labelled)], NUM_CLASSES)

    def count_rounds(ranks: Ranks) -> None:
        done: list[int] = []
        try:
            score(Brightest(), val, SETTINGS, ranks, progress=lambda images, _: done.append(images))
        finally:
            (tmp_path / f"rounds{ranks.rank}").write_text(str(len(done)))

    first, second = on_ranks(2, count_rounds, tmp_path)
    assert [(tmp_path / f"rounds{rank}").read_text() for rank in range(2)] == [str(rounds)] * 2
    assert isinstance(second, ImageError)
    assert f"val.tar: 's{damaged:02}': " in str(second)
    assert isinstance(first, PeerError)
    assert str(first) == f"rank 1 stopped: {second}"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_rank_without_images_does_not_wait_for_its_workers(tmp_path: Path) -> None:
    val = open_numbered(tmp_path, 2)
    settings = resolve_device(small_settings(batch_size=8, workers=2))
    results = on_ranks(3, lambda ranks: evaluate(Brightest(), val, settings, ranks), tmp_path)
    assert results == [evaluate(Brightest(), val, SETTINGS)] * 3
