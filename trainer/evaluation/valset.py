"""One rank's share of the validation images, batch by batch.

Letters: B batch, S side of an image.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from store.errors import ChangedShardError, ImageError, RelabelError, ShardError
from store.shards.images import decode_image, read_image
from store.shards.index import Sample, ShardIndex
from trainer.data.crops import resize_and_centre
from trainer.distributed import Ranks
from trainer.settings import TrainSettings

ValBatch = tuple[list[str], Tensor, Tensor]
"""Keys, (B,) int64 original labels and (B, 3, S, S) uint8 images."""


class ValBatches(Dataset[ValBatch | RelabelError]):
    """This rank's images batch by batch, or what is wrong with one of them as a value."""

    def __init__(self, val: Sequence[ShardIndex], settings: TrainSettings, ranks: Ranks) -> None:
        samples = [(index, sample) for index in val for sample in index.samples]
        # Without the shards' own samples, which would be pickled to every worker process.
        bare = {index.path: replace(index, samples=()) for index in val}
        self._mine = [(bare[index.path], sample) for index, sample in ranks.share(samples)]
        # As many images at once as in training, where `batch_size` is that of all ranks together.
        self._size = -(-settings.batch_size // (ranks.world * settings.accumulate))
        # Of the largest share, rank 0's: all ranks go through as many rounds.
        self.rounds = -(-len(samples[:: ranks.world]) // self._size)
        self._settings = settings

    def __len__(self) -> int:
        return -(-len(self._mine) // self._size)

    def __getitem__(self, i: int) -> ValBatch | RelabelError:
        part = self._mine[i * self._size : (i + 1) * self._size]
        try:
            for path, index in {index.path: index for index, _ in part}.items():
                _refuse_changed(path, index)
            images = [self._image(index.path, sample) for index, sample in part]
        except RelabelError as error:
            return error
        labels = torch.tensor([sample.label for _, sample in part], dtype=torch.int64)
        pixels = torch.stack(images)
        if get_worker_info() is not None:
            # Handed over through shared memory: if that is full, an error here, where it is told, and not in a thread.
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
                f"{path}: {sample.key!r}: {error}; validation images are never skipped: mend the shard"
            ) from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _refuse_changed(path: Path, index: ShardIndex) -> None:
    """Labels and places were read when the shard was indexed."""
    try:
        found = path.stat()
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error
    if (found.st_size, found.st_mtime_ns) != (index.size, index.mtime_ns):
        raise ChangedShardError(f"{path}: changed since this process began; put it back, or start again")
