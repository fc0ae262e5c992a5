"""Batches of training samples, the same for every number of workers, from any step on.

Each worker owns whole streams of the order and hands over its part of every batch; the main process joins the
parts in the workers' order.

Letters: B batch, S side of a crop, K ranks, H W cells (y, x), V streams.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from store.errors import RelabelError, SettingsError
from trainer.crops import crop_and_resize, draw_crop, sample_rng
from trainer.join import JoinedShard, quarantined_rows
from trainer.loading import load_items
from trainer.order import SampleOrder
from trainer.pooling import check_boxes
from trainer.samples import CACHED_ROWS_PER_STREAM, SampleReader, TrainSample
from trainer.settings import TrainSettings


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Crops and the label maps of their whole images."""

    images: Tensor  # (B, 3, S, S) uint8
    boxes: Tensor  # (B, 4) float32: x1, y1, x2, y2 by the whole image
    classes: Tensor  # (B, K, H, W) uint16
    scores: Tensor  # (B, K, H, W) float16
    tail: Tensor | None  # (B, H, W) float16; None unless the settings pool it
    originals: Tensor  # (B,) int64, the dataset's own labels, -1 where there is none
    flips: Tensor  # (B,) bool: mirror this crop

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; from pinned memory the copy does not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; the DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: tensor if tensor is None else change(tensor) for name, tensor in tensors.items()
        }
        return Batch(**changed)


def join_parts(parts: Sequence[Batch]) -> Batch:
    """One batch of the workers' parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Batch)}
    joined: dict[str, Any] = {name: None if part[0] is None else torch.cat(part) for name, part in columns.items()}
    return Batch(**joined)


def blank_batch(settings: TrainSettings, size: int) -> Batch:
    """Black crops of whole images, labelled as class 0."""
    return Batch(
        images=torch.zeros(size, 3, settings.image_size, settings.image_size, dtype=torch.uint8),
        boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(size, 1),
        classes=torch.zeros(size, 1, 1, 1, dtype=torch.uint16),
        scores=torch.zeros(size, 1, 1, 1, dtype=torch.float16),
        tail=torch.zeros(size, 1, 1, dtype=torch.float16) if settings.pools_tail else None,
        originals=torch.zeros(size, dtype=torch.int64),
        flips=torch.zeros(size, dtype=torch.bool),
    )


def make_order(joined: Sequence[JoinedShard], settings: TrainSettings, *, world: int = 1) -> SampleOrder:
    """The order of these shards' usable rows.

    Raises:
        SettingsError: fewer samples than one batch, or more workers than streams.
    """
    try:
        order = SampleOrder(
            group_rows=tuple(len(shard.group) for shard in joined),
            quarantined=quarantined_rows(joined),
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if settings.workers > order.num_streams:
        raise SettingsError(
            f"workers={settings.workers}: a batch_size of {settings.batch_size} divides among at most "
            f"{order.num_streams}; choose fewer workers, or a batch_size that is a multiple of 64"
        )
    return order


class SampleStream(IterableDataset[Batch | RelabelError]):
    """This process's part of every batch from `start_step` on, epoch after epoch without a pause."""

    def __init__(
        self,
        joined: Sequence[JoinedShard],
        order: SampleOrder,
        settings: TrainSettings,
        *,
        start_step: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.joined, self.order, self.settings, self.start_step = joined, order, settings, start_step
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[Batch | RelabelError]:
        worker = get_worker_info()
        owned = np.array_split(
            np.array_split(np.arange(self.order.num_streams), self.world)[self.rank],
            worker.num_workers if worker else 1,
        )
        mine = owned[worker.id if worker else 0]
        reader = SampleReader(
            self.joined, cached_rows=len(mine) * CACHED_ROWS_PER_STREAM, with_tail=self.settings.pools_tail
        )
        first_epoch, first_step = divmod(self.start_step, self.order.steps)
        try:
            for epoch in range(first_epoch, self.settings.epochs):
                streams = self.order.streams(epoch)[mine]
                for step in range(first_step if epoch == first_epoch else 0, self.order.steps):
                    yield self._part(reader, epoch, self.order.batch(streams, step).reshape(-1))
        except RelabelError as error:
            yield error

    def _part(self, reader: SampleReader, epoch: int, rows: NDArray[np.int64]) -> Batch:
        samples = [reader.read(int(row)) for row in rows]
        crops = [self._crop(sample, epoch, int(row)) for sample, row in zip(samples, rows, strict=True)]
        tails = [sample.tail for sample in samples if sample.tail is not None]
        boxes = torch.tensor([box for _, box, _ in crops], dtype=torch.float32)
        check_boxes(boxes)
        return Batch(
            # Channels stay last in memory, as decoded; convolutions take either.
            images=torch.from_numpy(np.stack([pixels for pixels, _, _ in crops])).permute(0, 3, 1, 2),
            boxes=boxes,
            classes=torch.from_numpy(np.stack([sample.classes for sample in samples])),
            scores=torch.from_numpy(np.stack([sample.scores for sample in samples])),
            tail=torch.from_numpy(np.stack(tails)) if tails else None,
            originals=torch.tensor([sample.original for sample in samples], dtype=torch.int64),
            flips=torch.tensor([flip for _, _, flip in crops], dtype=torch.bool),
        )

    def _crop(
        self, sample: TrainSample, epoch: int, row: int
    ) -> tuple[NDArray[np.uint8], tuple[float, float, float, float], bool]:
        """Pixels, normalised box, and whether to flip."""
        settings = self.settings
        rng = sample_rng(settings.seed, epoch, row)
        height, width = sample.image.shape[:2]
        box = draw_crop(rng, height, width, scale=settings.crop_scale, ratio=settings.crop_ratio)
        pixels = crop_and_resize(sample.image, box, settings.image_size, settings.interpolation)
        return pixels, box.normalised(height, width), settings.flip and bool(rng.random() < 0.5)


def load_batches(stream: SampleStream, device: torch.device) -> Generator[Batch, None, None]:
    """Whole batches on the device, read ahead by the settings' workers.

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
