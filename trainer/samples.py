"""Training samples by row number: a verified image and its label map, cached by the store's inner chunks.

Letters: K ranks, H W cells (y, x).
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from store.errors import ImageError
from store.group import LabelGroup, LabelRows
from store.images import decode_image
from store.layout import CHUNK_ROWS
from trainer.join import JoinedShard, image_member
from trainer.members import read_image
from trainer.order import WINDOW_ROWS

OPEN_GROUPS = 256  # their keys and offsets stay in memory, about 100 bytes a row
# A window of a stream lies in its own rows and in the rest of the chunks at its two ends.
CACHED_ROWS_PER_STREAM = WINDOW_ROWS + 2 * CHUNK_ROWS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainSample:
    """One row's whole image and its label map."""

    image: NDArray[np.uint8]  # height, width, 3
    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W)
    tail: NDArray[np.float16] | None  # (H, W), where the reader was asked for it
    original: int  # the dataset's own label, -1 where there is none


class SampleReader:
    """Reads samples in one process; keeps the label chunks of as many rows as its streams' windows need."""

    def __init__(self, joined: Sequence[JoinedShard], *, cached_rows: int, with_tail: bool) -> None:
        self._joined = joined
        self._starts = [shard.start for shard in joined]
        self._chunks = _ChunkCache(cached_rows, with_tail=with_tail)
        self._group = lru_cache(maxsize=OPEN_GROUPS)(lambda place: joined[place].fresh_group())

    def read(self, row: int) -> TrainSample:
        """The sample of a row, numbered through all shards.

        Raises:
            JoinError: the shard holds another sample there.
            ImageError: the image cannot be decoded.
            DamagedStoreError: the labels cannot be read.
        """
        place = bisect_right(self._starts, row) - 1
        path, group, row = self._joined[place].path, self._group(place), row - self._starts[place]
        member = image_member(group, row)
        try:
            image = decode_image(read_image(path, member))
        except ImageError as error:
            raise ImageError(
                f"{path}: {member.key!r}: {error}; it could be decoded when it was annotated: "
                "restore the shard, or annotate it again (--overwrite with only this shard)"
            ) from error
        chunk, i = row // CHUNK_ROWS, row % CHUNK_ROWS
        maps = self._chunks.get(place, chunk, group)
        return TrainSample(
            image=image,
            classes=maps.classes[i],
            scores=maps.scores[i],
            tail=None if maps.tail is None else maps.tail[i],
            original=int(group.targets[row]),
        )


class _ChunkCache:
    """Decoded label chunks, the least recently used dropped first once they hold too many rows."""

    def __init__(self, max_rows: int, *, with_tail: bool) -> None:
        self._max_rows, self._rows, self._with_tail = max_rows, 0, with_tail
        self._kept: OrderedDict[tuple[int, int], LabelRows] = OrderedDict()

    def get(self, place: int, chunk: int, group: LabelGroup) -> LabelRows:
        if (place, chunk) in self._kept:
            self._kept.move_to_end((place, chunk))
            return self._kept[place, chunk]
        rows = (chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, len(group)))
        maps = group.read(*rows, tail=self._with_tail)
        self._kept[place, chunk] = maps
        self._rows += len(maps.classes)
        while self._rows > self._max_rows and len(self._kept) > 1:
            self._rows -= len(self._kept.popitem(last=False)[1].classes)
        return maps
