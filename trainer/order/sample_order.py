"""The order of training samples: the rows of every batch as a pure function of (seed, epoch).

Blocks of 64 consecutive rows (the store's unit of decoding) are permuted, cut into V equal streams, and shuffled in
windows within each stream; each batch takes the next M/V rows of every stream. A reader of some streams therefore needs
few blocks at a time, and a batch holds the same rows for every number of ranks and workers. The streams are divided
equally among the ranks, and a rank's streams among its workers.

With N crops of each image, a pass through all rows lasts N epochs: a batch of B crops has M = B/N images.

Rows are numbered through all groups in the order given. Letters: B crops of a batch, M images of a batch, V streams,
L rows of a stream in one pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from trainer.order.blocks import BLOCK_ROWS, BlockPass, Blocks, Rows

MAX_STREAMS = 2048
POOL_ROWS = 65_536  # of all streams' windows together, 300 MB of label maps of 15 x 15 x 5
ORDER_STREAM = 1  # separates the random numbers of the order from those of crops and updates


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """The order of a training set for every epoch.

    Raises:
        ValueError: fewer usable rows than one batch, or a batch that the crops of an image do not divide.
    """

    group_rows: tuple[int, ...]  # rows of each group, undecodable ones included
    undecodable: tuple[int, ...]  # row numbers to leave out
    batch_size: int  # B
    seed: int
    crops_per_image: int = 1
    version: ClassVar[int] = 2  # recorded with each run, which keeps the order of its start

    def __post_init__(self) -> None:
        """Check that a batch has whole images, and an epoch at least one batch."""
        if self.batch_size % self.crops_per_image:
            raise ValueError(
                f"crops_per_image={self.crops_per_image} does not divide a batch_size of {self.batch_size}; "
                "change one of them"
            )
        if self.steps < 1:
            raise ValueError(
                f"{self.usable} usable samples are fewer than one batch of {self.batch_size}; lower batch_size"
            )

    @cached_property
    def usable(self) -> int:
        """The number of rows that are not undecodable."""
        return sum(self.group_rows) - len(self.undecodable)

    @property
    def steps(self) -> int:
        """Batches in an epoch, of as many crops as there are usable rows.

        The remainder of usable / B is the number of rows left over in a pass, different ones in each.
        """
        return self.usable // self.batch_size

    @property
    def batch_images(self) -> int:
        """M, the images of a batch."""
        return self.batch_size // self.crops_per_image

    @cached_property
    def num_streams(self) -> int:
        """V, which divides M and is the largest possible number of readers."""
        return next(v for v in range(min(self.batch_images, MAX_STREAMS), 0, -1) if self.batch_images % v == 0)

    @property
    def stream_rows(self) -> int:
        """M/V, the rows of a batch from each stream."""
        return self.batch_images // self.num_streams

    @property
    def window_rows(self) -> int:
        """Rows of a stream that are shuffled together: those of a whole number of batches."""
        return self.stream_rows * self._window_steps

    @property
    def cached_rows(self) -> int:
        """Rows of each stream whose label maps its reader keeps.

        A block that two windows share is needed until the second is read, and the other rows of both come between.
        """
        return 2 * self.window_rows + BLOCK_ROWS

    def owned(self, *, rank: int, world: int, worker: int, workers: int) -> Rows:
        """Numbers of the streams that one worker of one rank reads: a part of the rank's V/world consecutive streams.

        All ranks own equal numbers of streams, so `world` must divide V; workers may own unequal numbers.
        """
        per_rank = self.num_streams // world
        return np.array_split(np.arange(rank * per_rank, (rank + 1) * per_rank), workers)[worker]

    def batches(self, epoch: int, streams: Sequence[int] | Rows | None = None, *, start: int = 0) -> Iterator[Rows]:
        """Yield each batch of an epoch from step `start` on: its (n,) row numbers, or those of some streams.

        With all streams n is M; rows of a stream are adjacent.
        """
        number, part = divmod(epoch, self.crops_per_image)
        first = part * self.steps
        streams = range(self.num_streams) if streams is None else streams
        yield from self._read(number, streams, first + start, first + self.steps)

    def _read(self, number: int, streams: Sequence[int] | Rows, start: int, stop: int) -> Iterator[Rows]:
        """Yield the batches start to stop - 1 of a pass through all rows."""
        if start == stop:
            return
        rows = BlockPass(Blocks(self.group_rows, self.undecodable), self._rng(number))
        for window in range(start // self._window_steps, -(-stop // self._window_steps)):
            first = window * self._window_steps
            rows_vw = self._window(rows, number, np.asarray(streams), window)
            for step in range(max(start, first), min(stop, first + self._window_steps)):
                place = (step - first) * self.stream_rows
                yield rows_vw[:, place : place + self.stream_rows].reshape(-1)

    def _window(self, rows: BlockPass, number: int, streams_v: Rows, window: int) -> Rows:
        """(v, w) rows of one window of some streams in a pass, shuffled within each stream."""
        length = self.steps * self.crops_per_image * self.stream_rows  # L
        first, end = window * self.window_rows, min((window + 1) * self.window_rows, length)
        # Every other stream is read backwards: a block between two streams is read by both at the same time.
        places_v = streams_v * length + np.where(streams_v % 2, length - end, first)
        keys_vw = self._rng(number, window).random((self.num_streams, end - first))[streams_v]
        return np.take_along_axis(rows.rows(places_v, end - first), np.argsort(keys_vw, axis=1, kind="stable"), axis=1)

    @property
    def _window_steps(self) -> int:
        return max(POOL_ROWS // self.batch_images, 1)

    def _rng(self, number: int, *part: int) -> np.random.Generator:
        return np.random.default_rng((ORDER_STREAM, self.seed, number, *part))
