"""Reads label maps in the order of training, without images.

Letters: K kept classes of a cell, H W cells (y, x), n some rows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from store.format.arrays import CHUNK_ROWS
from store.maps.types import LabelRows
from store.reader import LabelStore
from trainer.data.join import JoinedShard, join_shards
from trainer.data.samples import ChunkId, SampleReader
from trainer.data.table import RowTable, make_table, read_group_rows

Maps = tuple[NDArray[np.uint16], NDArray[np.float16]]  # (K, H, W) classes and scores of one image


class MapReader(SampleReader):
    """A sample reader that leaves the images out, and counts the chunks that it decodes."""

    chunks = 0

    def maps(self, rows_n: NDArray[np.int64]) -> Iterator[Maps]:
        """Yield the maps of some rows as arrays of their own."""
        rows = self._table.look_up(rows_n)
        chunks = self._maps(rows)
        for row in rows:
            number, i = divmod(row.member.row, CHUNK_ROWS)
            chunk = chunks[ChunkId(row.shard_number, number)]
            yield chunk.classes[i].copy(), chunk.scores[i].copy()

    @property
    def groups(self) -> int:
        """Number of groups that it keeps open."""
        return self._group.cache_info().currsize

    def _read_chunk(self, chunk: ChunkId) -> LabelRows:
        self.chunks += 1
        return super()._read_chunk(chunk)


def open_groups(path: Path | str) -> tuple[JoinedShard, ...]:
    """Join all groups of a store with image shards of their names, which need not exist."""
    store = LabelStore.open(path)
    return join_shards([Path(f"{name}.tar") for name in store.names()], store)


def read_table(joined: Sequence[JoinedShard]) -> RowTable:
    """The table of all rows."""
    return make_table([read_group_rows(shard.group.fresh()) for shard in joined])
