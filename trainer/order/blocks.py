"""The usable rows of all groups in blocks of 64, the store's unit of decoding, and their order in one pass.

All is computed from the groups' sizes: no array has an entry for each row, or for each block.

Rows and blocks are numbered through all groups in the order given. Letters: G groups, n some blocks or rows, v some
places.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.order.permutation import Permutation

BLOCK_ROWS = 64
MAX_MARKS = 1 << 16  # of a pass: 0.5 MB
PIECE_MARKS = 1 << 12  # between which blocks are counted at once

Rows = NDArray[np.int64]


class Blocks:
    """The blocks of some groups; the last one of a group may be short, and those with undecodable rows have gaps.

    Args:
        group_rows: rows of each group, undecodable ones included.
        undecodable: row numbers that are left out.
    """

    def __init__(self, group_rows: Sequence[int], undecodable: Sequence[int]) -> None:
        sizes = np.asarray(group_rows, np.int64)
        self._first_row_G = np.concatenate([[0], np.cumsum(sizes)])
        self._first_block_G = np.concatenate([[0], np.cumsum(-(-sizes // BLOCK_ROWS))])
        self._undecodable = np.unique(np.asarray(undecodable, np.int64))

    def __len__(self) -> int:
        return int(self._first_block_G[-1])

    def sizes(self, blocks_n: Rows) -> Rows:
        """(n,) usable rows of each block."""
        first_n, end_n = self._spans(blocks_n)
        gaps_n = np.searchsorted(self._undecodable, end_n) - np.searchsorted(self._undecodable, first_n)
        return end_n - first_n - gaps_n

    def rows(self, blocks_n: Rows) -> Rows:
        """The usable rows of some blocks, block after block."""
        first_n, end_n = self._spans(blocks_n)
        rows_n64 = first_n[:, None] + np.arange(BLOCK_ROWS)
        rows: Rows = rows_n64[rows_n64 < end_n[:, None]]
        if not len(self._undecodable):
            return rows
        found = np.searchsorted(self._undecodable, rows).clip(max=len(self._undecodable) - 1)
        usable: Rows = rows[self._undecodable[found] != rows]
        return usable

    def _spans(self, blocks_n: Rows) -> tuple[Rows, Rows]:
        """(n,) first row of each block, and (n,) the row after its last."""
        group_n = np.searchsorted(self._first_block_G, blocks_n, side="right") - 1
        first_n = self._first_row_G[group_n] + (blocks_n - self._first_block_G[group_n]) * BLOCK_ROWS
        return first_n, np.minimum(first_n + BLOCK_ROWS, self._first_row_G[group_n + 1])


class BlockPass:
    """All usable rows in one order: block after block, the blocks in random order.

    The blocks have unequal sizes, so a row's place follows from all blocks before its own. The place is remembered for
    at most `MAX_MARKS` blocks at equal distances; the blocks between two of them are counted again.

    Args:
        blocks: of the rows.
        rng: of the order.
    """

    def __init__(self, blocks: Blocks, rng: np.random.Generator) -> None:
        self._blocks, self._permutation = blocks, Permutation(rng, len(blocks))
        self._distance = -(-len(blocks) // MAX_MARKS)  # in blocks
        piece = PIECE_MARKS * self._distance
        counts = [self._count(first, first + piece) for first in range(0, len(blocks), piece)]
        self._places = np.concatenate([[0], np.cumsum(np.concatenate(counts))])

    def rows(self, places_v: Rows, length: int) -> Rows:
        """(v, length) rows: as many from each of some places on."""
        first_v = np.searchsorted(self._places, places_v, side="right") - 1
        end_v = np.searchsorted(self._places, places_v + length)
        counts_v = self._index(end_v) - self._index(first_v)  # of blocks
        skipped_v = self._index(first_v) - (np.cumsum(counts_v) - counts_v)
        rows = self._blocks.rows(self._permutation(np.arange(counts_v.sum()) + np.repeat(skipped_v, counts_v)))
        found_v = self._places[end_v] - self._places[first_v]
        start_v = np.cumsum(found_v) - found_v + places_v - self._places[first_v]
        found: Rows = rows[start_v[:, None] + np.arange(length)]
        return found

    def _count(self, first: int, end: int) -> Rows:
        """Usable rows of the blocks from each mark to the next."""
        sizes = self._blocks.sizes(self._permutation(np.arange(first, min(end, len(self._blocks)))))
        return np.add.reduceat(sizes, np.arange(0, len(sizes), self._distance))

    def _index(self, marks: Rows) -> Rows:
        """Which of the permuted blocks come after these marks."""
        return np.minimum(marks * self._distance, len(self._blocks))
