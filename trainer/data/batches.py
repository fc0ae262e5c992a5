"""Batches of training samples, the same for every number of ranks and workers, from any step on.

Each rank owns as many of the order's streams as any other, each of its workers whole ones of these. A worker hands over
its part of every batch, and the main process joins the parts in the workers' order.

Letters: B batch, S side of a crop, K ranks, H W cells (y, x), V streams.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from store.errors import RelabelError, SettingsError
from trainer.batch import Batch, join_parts
from trainer.data.crops import crop_and_resize, draw_crop, sample_rng
from trainer.data.join import JoinedShard, RowTable, undecodable_rows
from trainer.data.loading import load_items
from trainer.data.order import MAX_STREAMS, SampleOrder
from trainer.data.samples import CACHED_ROWS_PER_STREAM, SampleReader, TrainSample
from trainer.settings import TrainSettings
from trainer.targets.pooling import check_boxes


def make_order(joined: Sequence[JoinedShard], settings: TrainSettings, *, world: int = 1) -> SampleOrder:
    """The order of these shards' usable rows.

    Raises:
        SettingsError: fewer samples than one batch, or more ranks and workers than the batch divides among.
    """
    order = order_of(joined, batch_size=settings.batch_size, seed=settings.seed)
    check_topology(order, world=world, workers=settings.workers)
    return order


def order_of(joined: Sequence[JoinedShard], *, batch_size: int, seed: int) -> SampleOrder:
    """The same, for whoever reads it; SettingsError where there are fewer samples than one batch."""
    try:
        return SampleOrder(
            group_rows=tuple(len(shard.group) for shard in joined),
            undecodable=undecodable_rows(joined),
            batch_size=batch_size,
            seed=seed,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


def check_topology(order: SampleOrder, *, world: int, workers: int) -> None:
    """Raise SettingsError unless every rank gets equally many streams, and each of its workers at least one."""
    streams, size = order.num_streams, order.batch_size
    more = "" if streams == MAX_STREAMS else f", or a batch_size that is a multiple of {MAX_STREAMS}"
    if streams % world:
        fitting = ", ".join(str(ranks) for ranks in range(1, streams + 1) if streams % ranks == 0)
        raise SettingsError(
            f"{world} ranks cannot share a batch_size of {size} equally, which divides into {streams}; "
            f"start {fitting} processes{more}"
        )
    if workers > streams // world:
        each = "" if world == 1 else f" for each of {world} ranks"
        raise SettingsError(
            f"workers={workers}: a batch_size of {size} divides among at most {streams // world}{each}; "
            f"choose fewer workers{more}"
        )


class SampleStream(IterableDataset[Batch | RelabelError]):
    """This process's part of its rank's part of every batch from `start_step` on, epoch after epoch without a pause.

    Args:
        joined: the shards.
        table: their rows, from `check_join`.
        order: from `make_order`, for the same `world`.
        settings: of the run.
        start_step: updates done since the run's start.
        rank: which of `world` processes that train together this is.
        world: how many there are.
    """

    def __init__(
        self,
        joined: Sequence[JoinedShard],
        table: RowTable,
        order: SampleOrder,
        settings: TrainSettings,
        *,
        start_step: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.joined, self.table, self.order, self.settings = joined, table, order, settings
        self.start_step, self.rank, self.world = start_step, rank, world

    def __iter__(self) -> Iterator[Batch | RelabelError]:
        worker = get_worker_info()
        mine = self.order.owned(
            rank=self.rank, world=self.world,
            worker=worker.id if worker else 0, workers=worker.num_workers if worker else 1,
        )  # fmt: skip
        reader = SampleReader(
            self.joined,
            self.table,
            cached_rows=len(mine) * CACHED_ROWS_PER_STREAM,
            with_tail=self.settings.pools_tail,
        )
        first_epoch, first_step = divmod(self.start_step, self.order.steps)
        try:
            for epoch in range(first_epoch, self.settings.epochs):
                streams = self.order.streams(epoch)[mine]
                for step in range(first_step if epoch == first_epoch else 0, self.order.steps):
                    yield self._part(reader, epoch, self.order.batch(streams, step).reshape(-1))
        except RelabelError as error:
            yield error

    def _part(self, reader: SampleReader, epoch: int, rows_n: NDArray[np.int64]) -> Batch:
        samples = zip(rows_n.tolist(), reader.read(rows_n), strict=True)
        return _make_batch([self._crop(sample, epoch, row) for row, sample in samples])

    def _crop(self, sample: TrainSample, epoch: int, row: int) -> "_Crop":
        settings = self.settings
        rng = sample_rng(settings.seed, epoch, row)
        height, width = sample.image.shape[:2]
        box = draw_crop(rng, height, width, scale=settings.crop_scale, ratio=settings.crop_ratio)
        return _Crop(
            pixels_SS3=crop_and_resize(sample.image, box, settings.image_size, settings.interpolation),
            box=box.normalised(height, width),
            flip=settings.flip and bool(rng.random() < 0.5),
            classes_KHW=sample.classes,
            scores_KHW=sample.scores,
            tail_logsumexp_HW=sample.tail_logsumexp,
            label=sample.label,
        )


class _Crop(NamedTuple):
    """One sample of a batch; its whole image is let go."""

    pixels_SS3: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    flip: bool
    classes_KHW: NDArray[np.uint16]
    scores_KHW: NDArray[np.float16]
    tail_logsumexp_HW: NDArray[np.float16] | None
    label: int


def _make_batch(crops: Sequence[_Crop]) -> Batch:
    boxes = torch.tensor([crop.box for crop in crops], dtype=torch.float32)
    check_boxes(boxes)
    # In a worker, the collation stacks in the memory through which a batch is handed over.
    tails_logsumexp = [crop.tail_logsumexp_HW for crop in crops if crop.tail_logsumexp_HW is not None]
    return Batch(
        # Channels stay last in memory, as decoded; convolutions take either.
        images=default_collate([crop.pixels_SS3 for crop in crops]).permute(0, 3, 1, 2),
        boxes=boxes,
        classes=default_collate([crop.classes_KHW for crop in crops]),
        scores=default_collate([crop.scores_KHW for crop in crops]),
        tail_logsumexp=default_collate(tails_logsumexp) if tails_logsumexp else None,
        labels=torch.tensor([crop.label for crop in crops], dtype=torch.int64),
        flips=torch.tensor([crop.flip for crop in crops], dtype=torch.bool),
    )


def load_batches(stream: SampleStream, device: torch.device) -> Generator[Batch, None, None]:
    """Whole batches of the stream's rank, (B/world) rows each, on the device; read ahead by the settings' workers.

    Raises:
        RelabelError: what went wrong in a worker.
    """
    workers = stream.settings.workers
    parts: list[Batch] = []
    for part in load_items(stream, workers=workers, pin_memory=device.type == "cuda"):
        parts.append(part.to(device))
        if len(parts) == max(workers, 1):
            yield join_parts(parts)
            parts = []
