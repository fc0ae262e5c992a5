"""Reads one rank's validation images, batch by batch.

Letters: B batch, S side of an image.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from store.errors import ChangedShardError, ImageError, RelabelError, ShardError
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import Sample, ShardIndex, is_unchanged
from trainer.data.crops import resize_and_centre
from trainer.distributed import Ranks
from trainer.settings import TrainSettings

ValBatch = tuple[list[str], Tensor, Tensor]
"""Keys, (B,) int64 labels of the dataset and (B, 3, S, S) uint8 images."""


class ValBatches(Dataset[ValBatch | RelabelError]):
    """This rank's images batch by batch; an item is a batch, or the error of one of its images."""

    def __init__(self, val: Sequence[ShardIndex], settings: TrainSettings, ranks: Ranks) -> None:
        samples = [(index, sample) for index in val for sample in index.samples]
        # Without the shards' lists of samples, which would be pickled to every worker process.
        bare = {index.path: replace(index, samples=()) for index in val}
        self._samples = [(bare[index.path], sample) for index, sample in ranks.assigned(samples)]
        # The number of images that a rank processes at once in training, where `batch_size` is for all ranks together.
        self._size = -(-settings.batch_size // (ranks.world * settings.accumulate))
        # Batches of rank 0, which has the most; all ranks go through as many rounds.
        self.rounds = -(-len(samples[:: ranks.world]) // self._size)
        self._settings = settings

    def __len__(self) -> int:
        return -(-len(self._samples) // self._size)

    def __getitem__(self, i: int) -> ValBatch | RelabelError:
        part = self._samples[i * self._size : (i + 1) * self._size]
        try:
            for index in {index.path: index for index, _ in part}.values():
                _refuse_changed(index)
            images = [self._image(index.path, sample) for index, sample in part]
        except RelabelError as error:
            return error
        labels = torch.tensor([sample.label for _, sample in part], dtype=torch.int64)
        pixels = torch.stack(images)
        if get_worker_info() is not None:
            # Move to shared memory here, where an error is reported if it is full, and not in the queue's thread.
            pixels.share_memory_()  # type: ignore[no-untyped-call]
            labels.share_memory_()  # type: ignore[no-untyped-call]
        return [sample.key for _, sample in part], labels, pixels

    def _image(self, path: Path, sample: Sample) -> Tensor:
        settings = self._settings
        try:
            image = decode_image(read_image(path, sample))
            pixels = resize_and_centre(image, settings.val_size, settings.val_crop_pct, settings.interpolation)
        except ImageError as error:
            raise ImageError(
                f"{path}: {sample.key!r}: {error}; validation images are never skipped: repair the shard"
            ) from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _refuse_changed(index: ShardIndex) -> None:
    """Raise ChangedShardError if a shard changed after its labels and offsets were read."""
    try:
        unchanged = is_unchanged(index)
    except OSError as error:
        raise ShardError(f"{index.path}: cannot be read: {error.strerror or error}") from error
    if not unchanged:
        raise ChangedShardError(f"{index.path}: changed since this process began; put it back, or start again")
