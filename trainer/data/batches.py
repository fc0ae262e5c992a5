"""Batches of training crops: the same for every number of ranks and workers, from any step on.

Each rank owns an equal number of the order's streams, each of its workers some of these. A worker yields its part of
every batch, and the main process joins the parts in the workers' order.

Letters: B batch, S side of a crop, K kept classes of a cell, H W cells (y, x), V streams, n some rows.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from store.errors import RelabelError, SettingsError
from trainer.batch import Batch, join_parts
from trainer.data.crops import crop_and_resize_into, draw_crop, sample_rng
from trainer.data.join import JoinedShard, undecodable_rows
from trainer.data.loading import load_items
from trainer.data.samples import SampleReader, TrainSample
from trainer.data.table import RowTable
from trainer.order.blocks import Rows
from trainer.order.first_order import ORDERS
from trainer.order.sample_order import SampleOrder
from trainer.settings import TrainSettings
from trainer.targets.pooling import check_boxes


def make_order(
    joined: Sequence[JoinedShard],
    settings: TrainSettings,
    *,
    world: int = 1,
    undecodable: Sequence[int] | None = None,
    version: int = SampleOrder.version,
) -> SampleOrder:
    """The order of these shards' usable rows, for a run with these settings on `world` ranks.

    `undecodable` holds the rows that the run has left out since its start; by default, those that are undecodable now.
    `version` is that of the order at the run's start.

    Raises:
        SettingsError: fewer samples than one batch, more ranks or workers than the batch divides among, or a rank with
            one image in a batch, whose crops would be mixed with one another.
    """
    order = order_of(
        joined,
        batch_size=settings.batch_size,
        seed=settings.seed,
        crops_per_image=settings.crops_per_image,
        undecodable=undecodable,
        version=version,
    )
    check_topology(order, world=world, workers=settings.workers)
    mixes = settings.cutmix_prob + settings.mixup_prob > 0
    if mixes and settings.crops_per_image > 1 and order.batch_images == world:
        raise SettingsError(
            f"crops_per_image={settings.crops_per_image}: a rank has one image in a batch of {order.batch_size} crops, "
            "and CutMix and mixup need another one; choose fewer crops, fewer ranks or a larger batch_size"
        )
    return order


def order_of(
    joined: Sequence[JoinedShard],
    *,
    batch_size: int,
    seed: int,
    crops_per_image: int = 1,
    undecodable: Sequence[int] | None = None,
    version: int = SampleOrder.version,
) -> SampleOrder:
    """The order of these shards' usable rows, for any ranks and workers; arguments as for `make_order`.

    Raises:
        SettingsError: fewer samples than one batch, or a batch that the crops of an image do not divide.
    """
    try:
        return ORDERS[version](
            group_rows=tuple(len(shard.group) for shard in joined),
            undecodable=undecodable_rows(joined) if undecodable is None else tuple(undecodable),
            batch_size=batch_size,
            seed=seed,
            crops_per_image=crops_per_image,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


def check_topology(order: SampleOrder, *, world: int, workers: int) -> None:
    """Raise SettingsError unless all ranks get an equal number of streams, and every worker at least one."""
    streams, crops = order.num_streams, order.crops_per_image
    batch = f"a batch_size of {order.batch_size}{f' with crops_per_image={crops}' if crops > 1 else ''}"
    if streams % world:
        fitting = ", ".join(str(ranks) for ranks in range(1, streams + 1) if streams % ranks == 0)
        raise SettingsError(
            f"{world} ranks cannot share {batch} equally, which divides into {streams}; "
            f"start {fitting} processes, or choose another batch_size"
        )
    if workers > streams // world:
        each = "" if world == 1 else f" for each of {world} ranks"
        raise SettingsError(
            f"workers={workers}: {batch} divides among at most {streams // world}{each}; "
            "choose fewer workers or a larger batch_size"
        )


def read_batches(
    joined: Sequence[JoinedShard],
    table: RowTable,
    order: SampleOrder,
    *,
    start_step: int,
    epochs: int,
    rank: int,
    world: int,
    verify: bool = False,
    replace: bool = False,
) -> Iterator[tuple[int, Iterator[tuple[int, TrainSample]]]]:
    """Read the part of every batch that belongs to this process: a rank's main process, or one of its workers.

    Args:
        joined: the shards.
        table: their rows, from `check_join`.
        order: of the rows.
        start_step: batches to skip, counted from the first epoch's start.
        epochs: epochs in all, counted from the first.
        rank: of this process among the `world` that train together.
        world: number of these processes.
        verify: whether to compare each image with its digest.
        replace: whether another sample stands in place of an image that cannot be decoded.

    Yields:
        For each batch its epoch, and its row numbers with their samples, which are decoded one by one.

    Raises:
        SettingsError: more workers than the rank's part of a batch divides among.
        RelabelError: as `SampleReader.read`.
    """
    owned = _own_streams(order, rank=rank, world=world)
    reader = SampleReader(joined, table, cached_rows=len(owned) * order.cached_rows, verify=verify, replace=replace)
    first_epoch, first_step = divmod(start_step, order.steps)
    for epoch in range(first_epoch, epochs):
        for rows_n in order.batches(epoch, owned, start=first_step if epoch == first_epoch else 0):
            yield epoch, zip(rows_n.tolist(), reader.read(rows_n), strict=True)


def _own_streams(order: SampleOrder, *, rank: int, world: int) -> Rows:
    """The streams of this process: a rank's main process, or one of its workers."""
    info = get_worker_info()
    worker, workers = (info.id, info.num_workers) if info else (0, 1)
    check_topology(order, world=world, workers=workers)
    return order.owned(rank=rank, world=world, worker=worker, workers=workers)


class SampleStream(IterableDataset[Batch | RelabelError]):
    """This process's part of every batch as crops, from `start_step` on, over all epochs without a pause.

    An error is yielded as the last item, since a DataLoader would turn a raised one into the text of a traceback.

    Args:
        joined: the shards.
        table: their rows, from `check_join`.
        order: from `make_order`, for the same `world`.
        settings: of the run.
        start_step: updates done since the run's start.
        rank: of this process among the `world` that train together.
        world: number of these processes.
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
        batches = read_batches(
            self.joined,
            self.table,
            self.order,
            start_step=self.start_step,
            epochs=self.settings.epochs,
            rank=self.rank,
            world=self.world,
            verify=self.settings.verify_images,
            replace=True,
        )
        try:
            images = len(_own_streams(self.order, rank=self.rank, world=self.world)) * self.order.stream_rows
            for epoch, samples in batches:
                batch = self._batch(epoch, samples, images * self.settings.crops_per_image)
                # A full /dev/shm is an error here; in the queue's thread it would lose the batch.
                yield batch if get_worker_info() is None else batch.share_memory()
        except RelabelError as error:
            yield error

    def _batch(self, epoch: int, samples: Iterable[tuple[int, TrainSample]], size: int) -> Batch:
        """The crops of some images, so many in all."""
        side = self.settings.image_size
        images_BSS3 = torch.empty(size, side, side, 3, dtype=torch.uint8)  # channels stay last in memory, as decoded
        images_B3SS = images_BSS3.permute(0, 3, 1, 2)
        places = iter(images_B3SS)
        crops = [crop for row, sample in samples for crop in self._crops(sample, epoch, row, places)]
        return _make_batch(images_B3SS, crops)

    def _crops(self, sample: TrainSample, epoch: int, row: int, places: Iterator[Tensor]) -> Iterator["_Crop"]:
        """The crops of one image, each drawn by itself and resized into the next place of the batch."""
        settings = self.settings
        rng = sample_rng(settings.seed, epoch, row)
        height, width = sample.image.shape[:2]
        for number in range(settings.crops_per_image):
            box = draw_crop(rng, height, width, scale=settings.crop_scale, ratio=settings.crop_ratio)
            crop_and_resize_into(next(places), sample.image, box, settings.interpolation)
            yield _Crop(
                box=box.normalised(height, width),
                flip=settings.flip and bool(rng.random() < 0.5),
                classes_KHW=sample.classes,
                scores_KHW=sample.scores,
                label=sample.label,
                left_out=None if number else sample.left_out,  # once for an image
            )


class _Crop(NamedTuple):
    """One crop of a batch, without its pixels."""

    box: tuple[float, float, float, float]
    flip: bool
    classes_KHW: NDArray[np.uint16]
    scores_KHW: NDArray[np.float16]
    label: int
    left_out: str | None


def _make_batch(images_B3SS: Tensor, crops: Sequence[_Crop]) -> Batch:
    boxes = torch.tensor([crop.box for crop in crops], dtype=torch.float32)
    check_boxes(boxes)
    return Batch(
        images=images_B3SS,
        boxes=boxes,
        classes=_stack([crop.classes_KHW for crop in crops]),
        scores=_stack([crop.scores_KHW for crop in crops]),
        labels=torch.tensor([crop.label for crop in crops], dtype=torch.int64),
        flips=torch.tensor([crop.flip for crop in crops], dtype=torch.bool),
        left_out=tuple(crop.left_out for crop in crops if crop.left_out is not None),
    )


def _stack(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def load_batches(stream: SampleStream, device: torch.device) -> Generator[Batch, None, None]:
    """Yield the rank's batches, B/world rows each, on the device; the settings' workers read ahead.

    Raises:
        RelabelError: an error of a worker.
    """
    workers = stream.settings.workers
    parts: list[Batch] = []
    for part in load_items(stream, workers=workers, preload=[__name__], pin_memory=device.type == "cuda"):
        parts.append(part.to(device))
        if len(parts) == max(workers, 1):
            yield join_parts(parts)
            parts = []
