"""Reads training samples by row number: verified images and their label maps, which are cached by inner chunks.

Letters: K kept classes of a cell, H W cells (y, x), n some rows.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import ImageError
from store.format.arrays import CHUNK_ROWS
from store.group import LabelGroup
from store.maps.regions import cut_image
from store.maps.types import LabelRows
from store.shards.decode import decode_image
from store.shards.images import ImageMember, read_images
from store.shards.index import image_digest
from store.shards.remote import Shard
from trainer.data.join import JoinedShard
from trainer.data.table import RowTable, TableRow

OPEN_GROUPS = 4096  # label groups whose arrays are kept open, about 14 KB each
TRIED_ROWS = 64  # after an image that cannot be decoded


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainSample:
    """One row's image, cut to the part that its label map covers (usually the whole image), and the label map."""

    key: str
    image: NDArray[np.uint8]  # height, width, 3
    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W)
    label: int  # the dataset's own label, -1 without one
    left_out: str | None = None  # the error of an undecodable image in whose place this sample stands


class ChunkId(NamedTuple):
    """An inner chunk of a label group."""

    shard_number: int  # of the group's shard among all
    number: int  # of the chunk in its group


class SampleReader:
    """Reads samples in one process.

    Args:
        joined: the shards.
        table: their rows.
        cached_rows: rows whose label chunks are kept.
        verify: compare each image's bytes with their digest.
        replace: give another sample of the shard in place of an image that cannot be decoded, instead of an error.
    """

    def __init__(
        self,
        joined: Sequence[JoinedShard],
        table: RowTable,
        *,
        cached_rows: int,
        verify: bool = False,
        replace: bool = False,
    ) -> None:
        self._joined, self._table = joined, table
        self._verify, self._replace = verify, replace
        self._chunks = _ChunkCache(cached_rows)
        self._group = lru_cache(maxsize=OPEN_GROUPS)(lambda shard_number: joined[shard_number].group.fresh())

    def read(self, rows_n: NDArray[np.int64]) -> Iterator[TrainSample]:
        """Yield the samples of some rows, numbered through all shards; all are read before the first is decoded.

        Raises:
            ChangedShardError: a shard holds another image there.
            ShardError: a shard cannot be read.
            ImageError: an image cannot be decoded, and nor can those after it, or it is not to be replaced.
            DamagedStoreError: the labels cannot be read.
            StoreReadError: the labels' disk or network failed.
        """
        rows = self._table.look_up(rows_n)
        members = [(self._joined[row.shard_number].shard, row.member) for row in rows]
        images, maps = list(read_images(members)), self._maps(rows)
        for row, data in zip(rows, images, strict=True):
            try:
                sample = self._sample(row, data, maps)
            except ImageError as error:
                if not self._replace:
                    raise
                sample = self._other(row, error)
            yield sample

    def _sample(self, row: TableRow, data: bytes, maps: dict[ChunkId, LabelRows]) -> TrainSample:
        shard, member = self._joined[row.shard_number], row.member
        if (reason := shard.group.undecodable.get(member.row)) is not None:  # since the run was started
            raise ImageError(f"{shard.shard}: {member.key!r}: {reason}")
        if self._verify and image_digest(data) != member.digest:
            raise ImageError(
                f"{shard.shard}: {member.key!r}: its bytes have changed since it was annotated: restore the shard"
            )
        chunk, i = maps[_chunk_of(row)], member.row % CHUNK_ROWS
        return TrainSample(
            key=member.key,
            image=cut_image(_decoded(shard.shard, member, data), shard.group.schema.preprocessing),
            classes=chunk.classes[i],
            scores=chunk.scores[i],
            label=row.label,
        )

    def _other(self, row: TableRow, error: ImageError) -> TrainSample:
        """The next sample of the shard that can be decoded, which is the same for all numbers of ranks and workers."""
        joined = self._joined[row.shard_number]
        for step in range(1, min(len(joined.group), TRIED_ROWS)):
            number = joined.start + (row.member.row + step) % len(joined.group)
            [other] = self._table.look_up(np.array([number]))
            try:
                data = next(read_images([(joined.shard, other.member)]))
                sample = self._sample(other, data, self._maps([other]))
            except ImageError:
                continue
            return replace(sample, left_out=str(error))
        raise error

    def _maps(self, rows: Sequence[TableRow]) -> dict[ChunkId, LabelRows]:
        """The label chunks of some rows; the storage backend reads missing ones concurrently if that is faster."""
        chunks = dict.fromkeys(map(_chunk_of, rows))
        missing = [chunk for chunk in chunks if chunk not in self._chunks]
        found = {chunk: self._chunks.get(chunk) for chunk in chunks if chunk in self._chunks}
        if missing:
            backend = self._joined[0].group.backend
            for chunk, maps in zip(missing, backend.map(self._read_chunk, missing), strict=True):
                found[chunk] = maps
                self._chunks.put(chunk, maps)
        return found

    def _read_chunk(self, chunk: ChunkId) -> LabelRows:
        group: LabelGroup = self._group(chunk.shard_number)
        start = chunk.number * CHUNK_ROWS
        return group.read(start, min(start + CHUNK_ROWS, len(group)), with_tail=False)


def _chunk_of(row: TableRow) -> ChunkId:
    return ChunkId(row.shard_number, row.member.row // CHUNK_ROWS)


def _decoded(shard: Shard, member: ImageMember, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode_image(data)
    except ImageError as error:
        raise ImageError(
            f"{shard}: {member.key!r}: {error}; it could be decoded when it was annotated: "
            "restore the shard, or annotate it again (--overwrite with only this shard)"
        ) from error


class _ChunkCache:
    """Decoded label chunks, up to a number of rows; the least recently used are dropped first."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows, self._rows = max_rows, 0
        self._kept: OrderedDict[ChunkId, LabelRows] = OrderedDict()

    def __contains__(self, chunk: ChunkId) -> bool:
        return chunk in self._kept

    def get(self, chunk: ChunkId) -> LabelRows:
        self._kept.move_to_end(chunk)
        return self._kept[chunk]

    def put(self, chunk: ChunkId, maps: LabelRows) -> None:
        self._kept[chunk] = maps
        self._rows += len(maps.classes)
        while self._rows > self._max_rows and len(self._kept) > 1:
            self._rows -= len(self._kept.popitem(last=False)[1].classes)
