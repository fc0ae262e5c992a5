"""Whose rows a process reads, and loaders that would divide them once more."""

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from store.errors import SettingsError
from tests.builders.training import Dataset
from trainer.data.dataset import LabelledSamples
from trainer.data.division import current_ranks, refuse_second_division


def samples_of(data: Dataset, **options: Any) -> LabelledSamples:
    return LabelledSamples([str(shard) for shard in data.shards], data.labels, batch_size=32, **options)


def test_ranks_are_those_of_the_moment_of_reading(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = samples_of(dataset)
    assert (samples.rank, samples.world, len(samples)) == (0, 1, 128)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (samples.rank, samples.world, len(samples), samples.rank_batch_size) == (1, 2, 64, 16)
    in_worker = ForkingPickler.dumps(samples)
    monkeypatch.delenv("RANK")
    worker: LabelledSamples = pickle.loads(in_worker)
    assert (worker.rank, worker.world) == (1, 2)
    with pytest.raises(SettingsError, match="rank and world: give both, or neither"):
        samples_of(dataset, rank=0)


@pytest.mark.parametrize(("rank", "world"), [("", "2"), ("2", "2"), ("-1", "2"), ("one", "2")])
def test_ranks_that_contradict_each_other_are_none(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert current_ranks() == (0, 1)


def shard_of(samples: LabelledSamples) -> Any:
    """As accelerate wraps an iterable dataset, and as torch pickles one to a worker of a wrapped loader."""
    names: dict[str, Any] = {"__name__": "accelerate.data_loader", "ForkingPickler": ForkingPickler}
    exec(
        "class IterableDatasetShard:\n"
        "    def __iter__(self):\n        return iter(self.dataset)\n"
        "class DataLoaderDispatcher:\n"
        "    def __iter__(self):\n        return ForkingPickler.dumps(self.dataset)\n",
        names,
    )
    shard, dispatcher = names["IterableDatasetShard"](), names["DataLoaderDispatcher"]()
    shard.dataset = dispatcher.dataset = samples
    return shard, dispatcher


def test_second_division_is_refused(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, dispatcher = shard_of(samples_of(dataset, rank=0, world=2))
    with pytest.raises(SettingsError, match="accelerate's IterableDatasetShard would divide among the processes"):
        iter(shard)
    with pytest.raises(SettingsError, match="accelerate's DataLoaderDispatcher would divide among the processes"):
        dispatcher.__iter__()
    shard, dispatcher = shard_of(samples_of(dataset, rank=0, world=1))
    assert len(list(iter(shard))) == 128
    assert dispatcher.__iter__()
    refuse_second_division(2)  # nothing among the callers of this test divides
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="accelerate's IterableDatasetShard would divide"):
        iter(shard)
