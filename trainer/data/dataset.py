"""Samples with their label maps for custom training loops: the first stage of a `webdataset.DataPipeline`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset

from store.reader import LabelStore
from store.shards.patterns import expand_sources
from trainer.data.batches import check_topology, order_of, read_batches
from trainer.data.checks import check_rows
from trainer.data.join import join_shards
from trainer.data.samples import TrainSample


class LabelledSamples(IterableDataset[dict[str, Any]]):
    """One epoch of images with their label maps, in the trainer's order.

    An image is cut to the part that its map covers: all of it, unless the store's preprocessing is `centre`.

    Each sample is a dict: `__key__`, `__epoch__` and `__row__` (its number among all rows); `image` (H, W, 3) uint8;
    `classes` (K, h, w) uint16 and `scores` (K, h, w) float16; `label`, the dataset's own, -1 without one. Every batch
    is divided among the ranks, and a rank's part among the workers of its `DataLoader`: of each `batch_size` samples,
    each of W workers yields batch_size / world / W.

    Args:
        shards: patterns of paths or URLs, such as `train-{0000..1023}.tar`.
        labels: the label store, a path or a URL.
        batch_size: of all ranks together.
        seed: of the order.
        rank: of this process among the `world` that train together; default: from `torch.distributed` if it runs.
        world: number of these processes; default likewise.

    Raises:
        RelabelError: shards and labels that do not belong together or cannot be read, all of which are checked; fewer
            samples than a batch; a number of ranks that a batch does not divide among.
    """

    def __init__(
        self,
        shards: Sequence[str],
        labels: Path | str,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        runs = dist.is_available() and dist.is_initialized()
        self.rank = rank if rank is not None else dist.get_rank() if runs else 0
        self.world = world if world is not None else dist.get_world_size() if runs else 1
        store = LabelStore.open(labels)
        self.num_classes = store.schema.num_classes
        self._joined = join_shards(expand_sources([shards] if isinstance(shards, str) else shards), store)
        self._order = order_of(self._joined, batch_size=batch_size, seed=seed)
        check_topology(self._order, world=self.world, workers=0)
        self._table = check_rows(self._joined, num_classes=None, workers=0)
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it change

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self._order.steps

    @property
    def rank_batch_size(self) -> int:
        """Samples of each batch that belong to one rank."""
        return self._order.batch_size // self.world

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to read next, counted from 0."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = int(self._epoch)
        batches = read_batches(
            self._joined,
            self._table,
            self._order,
            start_step=epoch * self.steps,
            epochs=epoch + 1,
            rank=self.rank,
            world=self.world,
        )
        for _, samples in batches:
            for row, sample in samples:
                yield {**_fields(sample), "__epoch__": epoch, "__row__": row}


def _fields(sample: TrainSample) -> dict[str, Any]:
    """A sample as a dict of writable arrays; label maps are copied, since a sample's are views into cached chunks."""
    return {
        "__key__": sample.key,
        "image": np.require(sample.image, requirements="W"),
        "classes": sample.classes.copy(),
        "scores": sample.scores.copy(),
        "label": sample.label,
    }
