"""Which rows form which batch: a pure function of (seed, epoch), independent of ranks and workers.

Blocks of 64 consecutive rows (the store's unit of decoding) are permuted, cut into V equal streams, and shuffled in
windows within each stream; batch g takes the next B/V rows of every stream. So a reader that owns some streams
touches few blocks at a time, and the batch is the same set whoever reads it. Ranks share the streams out equally, a
rank's workers share its own.

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
ORDER_STREAM = 1  # tells this use of the seed from the others

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """The order of a training set for every epoch.

    Raises:
        ValueError: fewer usable rows than one batch.
    """

    group_rows: tuple[int, ...]  # rows of each group, quarantined ones included
    undecodable: tuple[int, ...]  # row numbers that are left out
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
        """N, the rows that are not quarantined."""
        return sum(self.group_rows) - len(self.undecodable)

    @property
    def steps(self) -> int:
        """Batches in an epoch; the N mod B rows left over are others in each epoch."""
        return self.usable // self.batch_size

    @property
    def num_streams(self) -> int:
        """V, which divides B and so caps the number of readers."""
        return math.gcd(MAX_STREAMS, self.batch_size)

    @property
    def rows_per_step(self) -> int:
        """B/V, what a batch takes from each stream."""
        return self.batch_size // self.num_streams

    def owned(self, *, rank: int, world: int, worker: int, workers: int) -> Rows:
        """Numbers of the streams that one worker of one rank reads: its part of the rank's contiguous V/world.

        Workers may own unequal numbers; every rank owns the same number, so `world` has to divide V.
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
        place = rng.permutation(num_blocks)
        permuted_N = rows_N[np.argsort(place[block_N], kind="stable")]
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
    """(V, L) int64 columns that shuffle every window of every stream on its own."""
    window_L = np.arange(shape[1]) // WINDOW_ROWS
    # A random fraction on top of the window's number: sorting shuffles within windows and never across them.
    return np.argsort(window_L + rng.random(shape), axis=1, kind="stable")
