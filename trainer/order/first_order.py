"""The order of runs that an earlier release started: at most 64 streams, and 41 bytes a row of memory in each reader.

Letters as in `trainer.order.sample_order`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from trainer.order.blocks import Blocks, Rows
from trainer.order.sample_order import SampleOrder

FIRST_STREAMS = 64
FIRST_WINDOW_ROWS = 1024


class FirstOrder(SampleOrder):
    """Resumed runs keep it; nothing else uses it."""

    version: ClassVar[int] = 1

    @cached_property
    def num_streams(self) -> int:
        """V, a power of two."""
        return math.gcd(FIRST_STREAMS, self.batch_images)

    @property
    def window_rows(self) -> int:
        """Rows of a stream that are shuffled together."""
        return FIRST_WINDOW_ROWS

    def _read(self, number: int, streams: Sequence[int] | Rows, start: int, stop: int) -> Iterator[Rows]:
        rows_vL = self._streams(number)[np.asarray(streams)]
        for step in range(start, stop):
            yield rows_vL[:, step * self.stream_rows : (step + 1) * self.stream_rows].reshape(-1)

    def _streams(self, number: int) -> Rows:
        """(V, L) rows of a pass."""
        rng = self._rng(number)
        blocks = Blocks(self.group_rows, self.undecodable)
        every = np.arange(len(blocks))
        block_n = np.repeat(every, blocks.sizes(every))  # of each usable row
        permuted_n = blocks.rows(every)[np.argsort(rng.permutation(len(blocks))[block_n], kind="stable")]
        rows_VL = permuted_n[: self.steps * self.batch_size].reshape(self.num_streams, -1)
        # Sorting by window number plus a random fraction shuffles within windows and never across them.
        keys_VL = np.arange(rows_VL.shape[1]) // FIRST_WINDOW_ROWS + rng.random(rows_VL.shape)
        return np.take_along_axis(rows_VL, np.argsort(keys_VL, axis=1, kind="stable"), axis=1)


ORDERS: Mapping[int, type[SampleOrder]] = {order.version: order for order in (FirstOrder, SampleOrder)}
