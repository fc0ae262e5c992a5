"""The dataset for custom training loops; tests/docs/ runs the programs of the docs that use it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from msgspec.structs import replace
from torch.utils.data import DataLoader

from store.errors import JoinError, SettingsError, StoreReadError
from store.format.schema import CENTRE
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import index_shard
from tests.builders.servers import web_server
from tests.builders.training import SQUASHED, Dataset, make_dataset
from trainer.data.dataset import LabelledSamples

# On a machine of two cores torch advises against three workers, as a warning.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def samples_of(data: Dataset, **options: Any) -> LabelledSamples:
    return LabelledSamples([str(shard) for shard in data.shards], data.labels, **({"batch_size": 32} | options))


def keys(stage: Any) -> list[str]:
    return [sample["__key__"] for sample in stage]


def test_samples_are_the_shards_images_with_their_own_labels(dataset: Dataset) -> None:
    store = LabelStore.open(dataset.labels)
    images = {
        sample.key: (path, row, sample)
        for path in dataset.shards
        for row, sample in enumerate(index_shard(path).samples)
    }
    for sample in samples_of(dataset):
        path, row, found = images.pop(sample["__key__"])
        maps = store.group(path.stem).read(row, row + 1)
        data = path.read_bytes()[found.offset : found.offset + found.length]
        assert np.array_equal(sample["image"], decode_image(data))
        assert np.array_equal(sample["classes"], maps.classes[0])
        assert np.array_equal(sample["scores"], maps.scores[0])
        assert sample["label"] == found.label
        for name in ("image", "classes", "scores"):
            sample[name][:] = 0  # a changed sample changes no other
    assert not images


def test_images_are_cut_to_what_their_maps_cover(tmp_path: Path) -> None:
    part = replace(SQUASHED, mode=CENTRE, crop_pct=0.5, input_size=(24, 24))
    data = make_dataset(tmp_path, (32,), preprocessing=part)
    images = {sample.key: read_image(data.shards[0], sample) for sample in index_shard(data.shards[0]).samples}
    for sample in samples_of(data):  # of 24 x 20 pixels, resized to 57 x 48
        assert np.array_equal(sample["image"], decode_image(images[sample["__key__"]])[5:15, 7:17])


def test_an_epoch_is_the_same_until_another_one_is_set(dataset: Dataset) -> None:
    stage = samples_of(dataset)
    first = keys(stage)
    assert keys(stage) == first
    stage.set_epoch(1)
    assert keys(stage) != first
    assert sorted(keys(stage)) == sorted(first)
    assert keys(samples_of(dataset, seed=7)) != first


@pytest.mark.parametrize(
    ("workers", "batch_size", "start"), [(1, 32, "fork"), (3, 32, "fork"), (2, 8, "fork"), (2, 32, "forkserver")]
)
def test_batches_are_the_same_for_every_number_of_workers(
    dataset: Dataset, workers: int, batch_size: int, start: str
) -> None:
    alone = keys(samples_of(dataset))
    samples = samples_of(dataset, transform=key_of)
    loader = DataLoader(
        samples, batch_size=batch_size, collate_fn=list, num_workers=workers, multiprocessing_context=start
    )
    batches = list(loader)
    assert len(loader) == len(batches) == len(alone) // batch_size
    read = [key for batch in batches for key in batch]
    assert (read == alone) == (batch_size == samples.rank_batch_size)
    assert sorted(read) == sorted(alone)


def test_ranks_share_every_batch(dataset: Dataset) -> None:
    alone = keys(samples_of(dataset))
    parts = [keys(samples_of(dataset, rank=rank, world=2)) for rank in range(2)]
    for i in range(4):
        together = {key for part in parts for key in part[16 * i : 16 * (i + 1)]}
        assert together == set(alone[32 * i : 32 * (i + 1)])
    assert {len(part) for part in parts} == {len(samples_of(dataset, rank=1, world=2))} == {64}


def key_of(sample: dict[str, Any]) -> str:
    key: str = sample["__key__"]
    return key


def test_persistent_workers_see_the_next_epoch(dataset: Dataset) -> None:
    samples = samples_of(dataset, transform=key_of)
    loader = DataLoader(
        samples,
        batch_size=32,
        collate_fn=list,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )
    first = [key for batch in loader for key in batch]
    samples.set_epoch(1)
    assert [key for batch in loader for key in batch] == list(samples) != first
    del loader


def test_rank_and_world_are_those_of_torch_where_it_runs(dataset: Dataset, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1)
    try:
        stage = samples_of(dataset)
        assert (stage.rank, stage.world, stage.rank_batch_size, stage.steps) == (0, 1, 32, 4)
    finally:
        dist.destroy_process_group()


def test_shards_and_labels_that_do_not_belong_together_are_refused_at_once(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40, 30))
    with pytest.raises(SettingsError, match="3 ranks cannot share a batch_size of 32 equally"):
        samples_of(data, rank=0, world=3)
    with data.shards[1].open("ab") as file:
        file.write(bytes(10240))
    with pytest.raises(JoinError, match=r"train-1.tar: [0-9,]+ bytes, annotated with"):
        samples_of(data)


def test_forked_workers_are_refused_where_the_data_lie_behind_urls(dataset: Dataset) -> None:
    """They would wait for ever."""
    with web_server(dataset.labels.parent) as url:
        stage = LabelledSamples(f"{url}/train-{{0..2}}.tar", f"{url}/labels", batch_size=32)
        read = keys(DataLoader(stage, batch_size=None, num_workers=1, multiprocessing_context="forkserver"))
        assert read == keys(samples_of(dataset))
        with pytest.raises(StoreReadError, match="start workers with forkserver or spawn"):
            keys(DataLoader(stage, batch_size=None, num_workers=1, multiprocessing_context="fork"))
