"""Reading, decoding and resizing in worker processes; batches span shard borders, so the teacher never waits.

Shape letters: B batch, h w pixels.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import forkserver, parent_process, set_forkserver_preload
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from annotator.plan import RowRef
from store.errors import ImageError, WorkerError
from store.images import decode_image
from store.memory import keep_freed_memory
from store.schema import View
from store.shards import image_digest

BATCHES_AHEAD = 2  # per worker


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedBatch:
    """Images ready for the teacher, and what was learnt while reading them."""

    rows: list[RowRef]
    pixels_B3hw: Tensor  # uint8; zeros where an image could not be decoded
    digests: list[int]  # BLAKE2b-64 of each image's bytes
    bad: dict[int, str]  # position in the batch -> why the image could not be decoded
    lost: dict[int, str]  # position in the batch -> why its bytes could not be read

    def pin_memory(self) -> "DecodedBatch":
        """The batch in page-locked memory, so that its copy to the device does not wait; the DataLoader calls this."""
        return replace(self, pixels_B3hw=self.pixels_B3hw.pin_memory())


def start_server() -> None:
    """Start the process that workers are forked from, which takes seconds; beside other work if called early.

    Forked from this one they would share its memory: after each fork, the teacher would copy every page of its own that
    it writes to.
    """
    set_forkserver_preload([__name__])
    forkserver.ensure_running()


def decode_batches(
    rows: Iterable[RowRef], view: View, *, batch_size: int, workers: int, pin_memory: bool
) -> Iterator[DecodedBatch]:
    """Decode rows in order, in batches of `batch_size`, the last one shorter.

    Raises:
        WorkerError: a worker process was killed.
    """
    if workers:
        start_server()
    loader = DataLoader(
        _Images(view),
        batch_sampler=_Batches(rows, batch_size),
        num_workers=workers,
        collate_fn=_one,
        pin_memory=pin_memory,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_begin,
        prefetch_factor=BATCHES_AHEAD if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            "a decoding worker was killed, perhaps for memory; lower --workers or --batch-size"
        ) from error


class _Batches:
    """The loader's index source: it asks for the next batch whenever a worker is free."""

    def __init__(self, rows: Iterable[RowRef], batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __iter__(self) -> Iterator[list[RowRef]]:
        rows = iter(self.rows)
        while batch := list(islice(rows, self.batch_size)):
            yield batch


class _Images(Dataset[DecodedBatch]):
    """Runs in the workers: rows in, a decoded batch out."""

    def __init__(self, view: View) -> None:
        self.size, self.resample = view.input_size, Image.Resampling[view.interpolation.upper()]

    def __getitems__(self, rows: list[RowRef]) -> list[DecodedBatch]:
        height, width = self.size
        pixels = np.zeros((len(rows), height, width, 3), np.uint8)
        digests, bad, lost = [0] * len(rows), {}, {}
        for i, ref in enumerate(rows):
            try:
                data = _read_bytes(ref)
                digests[i] = image_digest(data)
                pixels[i] = self._squash(decode_image(data))
            except ImageError as error:
                bad[i] = str(error)
            except OSError as error:
                lost[i] = error.strerror or str(error)
        pixels_B3hw = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
        return [DecodedBatch(rows=rows, pixels_B3hw=pixels_B3hw, digests=digests, bad=bad, lost=lost)]

    def _squash(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view `squash`: the whole image, its aspect not kept."""
        height, width = self.size
        return np.asarray(Image.fromarray(image).resize((width, height), self.resample))


def _read_bytes(ref: RowRef) -> bytes:
    with ref.path.open("rb") as file:
        file.seek(ref.offset)
        data = file.read(ref.length)
    if len(data) != ref.length:
        raise OSError(f"ends within an image at byte {ref.offset + len(data)}")
    return data


def _begin(_: int) -> None:
    """End when the main process tells this one to, or is killed, and not before.

    Whoever stops the run may signal every process of it. torch's own watch is for the process that forked this one,
    which is the server.
    """
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    keep_freed_memory()
    Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _one(batches: list[DecodedBatch]) -> DecodedBatch:
    return batches[0]
