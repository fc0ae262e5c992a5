"""The order of training samples: the rows of every batch as a pure function of (seed, epoch).

Blocks of 64 consecutive rows (the store's unit of decoding) are permuted, cut into V equal streams, and shuffled in
windows within each stream; batch g takes the next B/V rows of every stream. A reader of some streams therefore needs
few blocks at a time, and a batch holds the same rows for every number of ranks and workers. The streams are divided
equally among the ranks, and a rank's streams among its workers.

Rows are numbered through all groups in the order given. Letters: N usable rows, B rows of a batch, V streams,
L rows of a stream in one epoch.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 64
MAX_STREAMS = 64
WINDOW_ROWS = 1024
ORDER_STREAM = 1  # separates the random numbers of the order from those of crops and updates

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """The order of a training set for every epoch.

    Raises:
        ValueError: fewer usable rows than one batch.
    """

    group_rows: tuple[int, ...]  # rows of each group, undecodable ones included
    undecodable: tuple[int, ...]  # row numbers to leave out
    batch_size: int  # B
    seed: int

    def __post_init__(self) -> None:
        """Check that an epoch has at least one batch."""
        if self.steps < 1:
            raise ValueError(
                f"{self.usable} usable samples are fewer than one batch of {self.batch_size}; lower batch_size"
            )

    @property
    def usable(self) -> int:
        """N, the number of rows that are not undecodable."""
        return sum(self.group_rows) - len(self.undecodable)

    @property
    def steps(self) -> int:
        """Batches in an epoch; N mod B rows are left over, different ones in each epoch."""
        return self.usable // self.batch_size

    @property
    def num_streams(self) -> int:
        """V, which divides B and is the largest possible number of readers."""
        return math.gcd(MAX_STREAMS, self.batch_size)

    @property
    def rows_per_step(self) -> int:
        """B/V, the rows of a batch from each stream."""
        return self.batch_size // self.num_streams

    def owned(self, *, rank: int, world: int, worker: int, workers: int) -> Rows:
        """Numbers of the streams that one worker of one rank reads: a part of the rank's V/world consecutive streams.

        All ranks own equal numbers of streams, so `world` must divide V; workers may own unequal numbers.
        """
        per_rank = self.num_streams // world
        return np.array_split(np.arange(rank * per_rank, (rank + 1) * per_rank), workers)[worker]

    def streams(self, epoch: int) -> Rows:
        """The epoch's row numbers.

        Returns:
            (V, L) int64, L = steps * B/V; column slice [g * B/V, (g + 1) * B/V) of all streams is batch g.
        """
        rng = np.random.default_rng((ORDER_STREAM, self.seed, epoch))
        rows_N, block_N, num_blocks = self._blocks()
        position = rng.permutation(num_blocks)
        permuted_N = rows_N[np.argsort(position[block_N], kind="stable")]
        streams_VL = permuted_N[: self.steps * self.batch_size].reshape(self.num_streams, -1)
        return np.take_along_axis(streams_VL, _window_shuffle(rng, streams_VL.shape), axis=1)

    def batch(self, streams_VL: Rows, step: int) -> Rows:
        """(V, B/V) row numbers of one batch, from all streams or from some of them."""
        return streams_VL[:, step * self.rows_per_step : (step + 1) * self.rows_per_step]

    def _blocks(self) -> tuple[Rows, Rows, int]:
        """(N,) usable rows in order, (N,) the block of each, and the number of blocks."""
        sizes = np.asarray(self.group_rows, np.int64)
        blocks = -(-sizes // BLOCK_ROWS)
        group_start, first_block = np.cumsum(sizes) - sizes, np.cumsum(blocks) - blocks
        usable = np.ones(sizes.sum(), bool)
        usable[list(self.undecodable)] = False
        rows_N = np.flatnonzero(usable).astype(np.int64)
        group_N = np.searchsorted(group_start, rows_N, side="right") - 1
        block_N = first_block[group_N] + (rows_N - group_start[group_N]) // BLOCK_ROWS
        return rows_N, block_N, int(blocks.sum())


def _window_shuffle(rng: np.random.Generator, shape: tuple[int, ...]) -> Rows:
    """(V, L) int64 column indices that shuffle each window of each stream separately."""
    window_L = np.arange(shape[1]) // WINDOW_ROWS
    # Sorting by window number plus a random fraction shuffles within windows and never across them.
    return np.argsort(window_L + rng.random(shape), axis=1, kind="stable")
