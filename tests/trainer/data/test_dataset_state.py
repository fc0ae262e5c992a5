"""Stopping in the middle of an epoch and going on, with any loader."""

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from store.errors import SettingsError
from tests.builders.training import Dataset, make_dataset
from trainer.data.dataset import LabelledSamples

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def samples_of(data: Dataset, **options: Any) -> LabelledSamples:
    shards, given = [str(shard) for shard in data.shards], {"batch_size": 32, "transform": row_of, **options}
    return LabelledSamples(shards, data.labels, **given)


def row_of(sample: dict[str, Any]) -> int:
    row: int = sample["__row__"]
    return row


def loader_of(samples: LabelledSamples, workers: int = 0) -> DataLoader[list[int]]:
    return DataLoader(samples, batch_size=samples.rank_batch_size, collate_fn=list, num_workers=workers)


@pytest.mark.parametrize("done", [0, 1, 37, 128])
def test_reading_goes_on_after_the_last_sample(dataset: Dataset, done: int) -> None:
    first, second = samples_of(dataset), samples_of(dataset)
    first.set_epoch(3)
    whole = list(first)
    reading = iter(first)
    assert [next(reading) for _ in range(done)] == whole[:done]
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert list(second) == whole[done:]
    assert list(second) == whole, "the pass after it is a whole one"


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_go_on_where_training_was(dataset: Dataset, workers: int) -> None:
    whole = list(loader_of(samples_of(dataset)))
    samples = samples_of(dataset)
    samples.load_state_dict(samples_of(dataset).state_dict(step=1))
    loader = loader_of(samples, workers)
    samples.set_epoch(0)  # as a loop does that begins with the state's epoch
    assert list(loader) == whole[1:]
    assert list(loader) == whole
    samples.load_state_dict(samples.state_dict(step=3))
    samples.set_epoch(1)
    assert len(list(loader)) == 4, "another epoch is read from its start"


def test_state_between_batches_fits_another_number_of_ranks(dataset: Dataset) -> None:
    whole = list(loader_of(samples_of(dataset)))
    state = samples_of(dataset, rank=1, world=2).state_dict(step=2)
    samples = samples_of(dataset)
    samples.load_state_dict(state)
    assert list(loader_of(samples)) == whole[2:]
    with pytest.raises(SettingsError, match="the state has another world, 2, than these samples, 1"):
        samples.load_state_dict(state | {"sample": 3})


def test_position_of_workers_that_are_ahead_is_not_taken_for_that_of_training(dataset: Dataset) -> None:
    samples = samples_of(dataset)
    next(iter(loader_of(samples, 1)))
    with pytest.raises(SettingsError, match=r"give state_dict\(step=...\)"):
        samples.state_dict()
    assert samples.state_dict(step=1)["step"] == 1


def test_state_of_other_samples_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    state = samples_of(dataset).state_dict()
    with pytest.raises(SettingsError, match="another seed, 0, than these samples, 1"):
        samples_of(dataset, seed=1).load_state_dict(state)
    with pytest.raises(SettingsError, match="another batch_size, 32, than these samples, 16"):
        samples_of(dataset, batch_size=16).load_state_dict(state)
    with pytest.raises(SettingsError, match="the state has another shards"):
        samples_of(make_dataset(tmp_path, (40, 30))).load_state_dict(state)
    for bad in ({}, {"epoch": 0}, state | {"step": "x"}, state | {"step": 5}, state | {"epoch": -1}):
        with pytest.raises(SettingsError, match="state"):
            samples_of(dataset).load_state_dict(bad)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize(("workers", "batch_size"), [(0, 32), (2, 32), (3, 32), (2, 8)])
def test_torchdata_loader_goes_on_in_the_middle_of_an_epoch(dataset: Dataset, workers: int, batch_size: int) -> None:
    loading = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        return loading.StatefulDataLoader(
            samples_of(dataset), batch_size=batch_size, collate_fn=list, num_workers=workers
        )

    whole = list(loader())
    for done in range(len(whole) + 1):
        first, second = loader(), loader()
        reading = iter(first)
        assert [next(reading) for _ in range(done)] == whole[:done]
        second.load_state_dict(first.state_dict())
        assert list(second) == whole[done:]
        assert list(second) == whole
