"""Read, decode and resize images in worker processes. Batches may span shards, so that all have the same size.

Shape letters: B batch, h w pixels.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from annotator.input.plan import RowRef
from store.errors import ImageError, ShardError, WorkerError
from store.format.schema import Preprocessing
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import image_digest
from store.system import processes

BATCHES_AHEAD = 2  # per worker


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedBatch:
    """Images for the teacher, with their digests and errors."""

    rows: list[RowRef]
    pixels_B3hw: Tensor  # uint8; another image of the batch, or zeros, in place of one that could not be decoded
    digests: list[int]  # BLAKE2b-64 of each image's bytes
    bad: dict[int, str]  # position in the batch -> why the image could not be decoded
    lost: dict[int, str]  # position in the batch -> why its bytes could not be read

    def pin_memory(self) -> "DecodedBatch":
        """The batch in page-locked memory, so that its copy to the device does not wait; the DataLoader calls this."""
        return replace(self, pixels_B3hw=self.pixels_B3hw.pin_memory())


def start_server() -> None:
    """Start the process from which workers are forked. It takes seconds; called early, it runs beside other work.

    Workers forked from the main process would share its memory, and the teacher would have to copy each page it writes.
    """
    processes.start_server([__name__])


def decode_batches(
    rows: Iterable[RowRef], preprocessing: Preprocessing, *, batch_size: int, workers: int, pin_memory: bool
) -> Generator[DecodedBatch, None, None]:
    """Decode rows in order, in batches of `batch_size`, the last one shorter.

    Raises:
        WorkerError: a worker process was killed; memory, open files or /dev/shm do not suffice.
    """
    loader = partial(
        DataLoader,
        _Images(preprocessing),
        batch_sampler=_Batches(rows, batch_size),
        collate_fn=_one,
        pin_memory=pin_memory,
        prefetch_factor=BATCHES_AHEAD if workers else None,
    )
    with (
        processes.worker_deaths(WorkerError, "lower --workers or --batch-size"),
        closing(processes.read_ahead(loader, workers=workers, preload=[__name__])) as batches,
    ):
        yield from batches


class _Batches:
    """The batches of rows that torch's DataLoader sends to free workers."""

    def __init__(self, rows: Iterable[RowRef], batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __iter__(self) -> Iterator[list[RowRef]]:
        rows = iter(self.rows)
        while batch := list(islice(rows, self.batch_size)):
            yield batch


class _Images(Dataset[DecodedBatch]):
    """Decodes a batch of rows in a worker."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __getitems__(self, rows: list[RowRef]) -> list[DecodedBatch]:
        height, width = self.preprocessing.input_size
        pixels = np.zeros((len(rows), height, width, 3), np.uint8)
        digests, bad, lost = [0] * len(rows), {}, {}
        for i, ref in enumerate(rows):
            try:
                data = read_image(ref.path, ref.sample, source=ref.source)
                digests[i] = image_digest(data)
                pixels[i] = squash(decode_image(data), self.preprocessing)
            except ImageError as error:
                bad[i] = str(error)
            except ShardError as error:
                lost[i] = str(error)
        # A teacher may fail on zeros; the maps of a repeated image are discarded just the same.
        good = next((i for i in range(len(rows)) if i not in bad and i not in lost), None)
        if good is not None:
            pixels[[*bad, *lost]] = pixels[good]
        pixels_B3hw = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
        if get_worker_info() is not None:
            # A full /dev/shm is an error here; in torch's thread it would lose the batch.
            pixels_B3hw.share_memory_()  # type: ignore[no-untyped-call]
        return [DecodedBatch(rows=rows, pixels_B3hw=pixels_B3hw, digests=digests, bad=bad, lost=lost)]


def squash(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize a (H, W, 3) uint8 image to the teacher's input size, without keeping its aspect ratio."""
    height, width = preprocessing.input_size
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def _one(batches: list[DecodedBatch]) -> DecodedBatch:
    return batches[0]
