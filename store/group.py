"""One label group of a store: label maps by row, and the samples' keys, labels and byte ranges in their tar.

Letters: N rows, K kept classes, C classes, H W cells (y, x).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from store.errors import DamagedStoreError, RowNotFoundError
from store.format.arrays import BIG_ARRAYS, CHUNK_ROWS
from store.format.checks import check_maps
from store.maps.types import LabelRow, LabelRows
from store.rows import GroupArrays

if TYPE_CHECKING:
    from store.view.notebook import NotebookPage

PathPattern = str | os.PathLike[str]


class LabelGroup(GroupArrays):
    """The labels of one image shard; row i belongs to the shard's i-th sample.

    Arrays are read on first use, and a group can be read after a fork.
    """

    def __len__(self) -> int:
        return self.commit.rows

    def __repr__(self) -> str:
        undecodable = f", {len(self.undecodable):,} undecodable" if self.undecodable else ""
        return f"LabelGroup({self.name!r}, {len(self):,} rows{undecodable})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> "GroupRow": ...
    @overload
    def __getitem__(self, index: slice) -> "list[GroupRow]": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "GroupRow | list[GroupRow]":
        """A row, counted from the end where the index is negative, or the list of a slice's rows; raises as `row`."""
        if isinstance(index, slice):
            return [self.row(i) for i in range(len(self))[index]]
        number = _row_number(index)
        if not -len(self) <= number < len(self):
            raise RowNotFoundError(f"{self}: row {number}; the group has {len(self)} rows")
        return self.row(number % len(self))

    def __iter__(self) -> Iterator["GroupRow"]:
        for start in range(0, len(self), CHUNK_ROWS):
            maps = self.read(start, min(start + CHUNK_ROWS, len(self)))
            for i in range(len(maps.classes)):
                yield self._row(start + i, maps, i)

    def __contains__(self, key: object) -> bool:
        """Whether a row has this key."""
        return isinstance(key, str) and self.find(key) is not None

    def fresh(self) -> "LabelGroup":
        """The same group without cached arrays, for readers that bound their memory by dropping groups."""
        group = LabelGroup(self.backend, self.name, self.schema, self.commit, self.record)
        group.versions |= self.versions
        return group

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys, by row."""
        return [str(key) for key in self.read_array("keys")]

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """(N, 2) uint64: byte offset and length of each image in its tar."""
        return self.read_array("offsets")

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """(N,) uint64: BLAKE2b-64 of each image's bytes."""
        return self.read_array("digests")

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """(N,) int32: the dataset's labels, -1 where the shard has none."""
        return self.read_array("targets")

    @cached_property
    def undecodable(self) -> dict[int, str]:
        """Reasons by row, of the images that could not be decoded."""
        return {bad.row: bad.reason for bad in self.commit.undecodable}

    def usable(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """(stop - start,) bool: whether each row's image could be decoded."""
        mask = np.ones(len(self), bool)
        mask[list(self.undecodable)] = False
        return mask[start:stop]

    def read(self, start: int = 0, stop: int | None = None, *, with_tail: bool = True) -> LabelRows:
        """Label maps of rows start to stop, by default all; decoding is by chunks of 64 rows.

        Args:
            start: the first row.
            stop: the row after the last.
            with_tail: whether to read `tail_logsumexp`, where the group has it.

        Returns:
            classes (n, K, H, W) uint16, scores (n, K, H, W) float16, tail_logsumexp (n, H, W) float16 or None.

        Raises:
            DamagedStoreError: a chunk is missing, fails its checksum or holds invalid values.
            StoreReadError: the disk or network failed.
        """
        rows = slice(start, len(self) if stop is None else stop)
        names = BIG_ARRAYS if with_tail and self.has_tail else BIG_ARRAYS[:2]
        found = self.read_rows(names, rows)
        maps = LabelRows(classes=found[0], scores=found[1], tail_logsumexp=found[2] if len(found) > 2 else None)
        problem = check_maps(
            maps.classes,
            maps.scores,
            maps.tail_logsumexp,
            self.usable(start, stop),
            num_classes=self.schema.num_classes,
        )
        if problem is not None:
            raise DamagedStoreError(f"{self}: array {problem[0]!r} is damaged: {problem[1]}")
        return maps

    def row(self, i: int) -> "GroupRow":
        """One row; negative indices are refused.

        Raises:
            RowNotFoundError: no such row.
            DamagedStoreError: its chunk cannot be read.
            TypeError: not a row number.
        """
        number = _row_number(i)
        if not 0 <= number < len(self):
            raise RowNotFoundError(f"{self}: row {number}; the group has {len(self)} rows")
        return self._row(number, self.read(number, number + 1), 0)

    def _row(self, number: int, maps: LabelRows, i: int) -> "GroupRow":
        """Row `number`, whose label map is the i-th of `maps`."""
        offset, length = (int(value) for value in self.offsets[number])
        return GroupRow(
            key=self.keys[number],
            classes=maps.classes[i],
            scores=maps.scores[i],
            tail_logsumexp=None if maps.tail_logsumexp is None else maps.tail_logsumexp[i],
            label=int(self.labels[number]),
            offset=offset,
            length=length,
            undecodable=self.undecodable.get(number),
            group=self,
            number=number,
        )


def _row_number(index: object) -> int:
    """The index as an int; numpy's integers are row numbers too."""
    if not isinstance(index, SupportsIndex):
        raise TypeError(f"rows are numbered: expected an integer, not {index!r}; group.find(key) gives a key's row")
    return int(index.__index__())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class GroupRow(LabelRow):
    """A row of a label group: one image's label map, and where it is in the store."""

    group: LabelGroup
    number: int  # of the row in the group

    def __repr__(self) -> str:
        return f"{LabelRow.__repr__(self)[:-1]}, row {self.number} of {self.group.name!r})"

    def _repr_html_(self) -> str:
        """The label map as coloured cells and the whole image's target as bars, for a notebook."""
        from store.view.notebook import row_html  # upwards, when a notebook asks: data before display

        return row_html(self)

    def show(self, shards: PathPattern | Sequence[PathPattern] = ()) -> "NotebookPage":
        """The page of `relabel-store show --html`, to explore cells and crops in a notebook. Needs the extra `web`.

        Args:
            shards: patterns of image shards, as of `--shards`, to show the image; without any, the map alone.

        Raises:
            ShardError: the shard is not among those given, or holds another image.
            LabelMapError: the image was undecodable, so there is no map.
        """
        from store.view.notebook import row_page

        patterns = [shards] if isinstance(shards, str | os.PathLike) else shards
        return row_page(self, [os.fspath(pattern) for pattern in patterns])
