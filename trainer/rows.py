"""What the labels know of every sample besides its map: key, place in the tar, digest and original label.

All rows of all shards in five flat tensors, about 60 bytes a row, in memory that the loader's processes share: each of
them needs every row of the epoch sooner or later.

Letters: N rows of all shards, in their order; n some of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from store.group import LabelGroup
from store.shards.images import ImageMember

COLUMNS = ("keys", "offsets", "digests", "targets")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupRows:
    """The rows of one label group."""

    keys: list[str]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of each image in its tar
    digests: NDArray[np.uint64]  # (N,)
    targets: NDArray[np.int32]  # (N,)

    def member(self, row: int) -> ImageMember:
        """Where the labels say that a row's image lies."""
        offset, length = (int(value) for value in self.offsets[row])
        return ImageMember(row=row, key=self.keys[row], offset=offset, length=length, digest=int(self.digests[row]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowTable:
    """The rows of all shards."""

    starts: NDArray[np.int64]  # each group's first row
    keys: Tensor  # uint8, one UTF-8 text after the other
    key_starts: Tensor  # (N + 1,) int64, where each of them starts, and where the last one ends
    offsets: Tensor  # (N, 2) uint64
    digests: Tensor  # (N,) uint64
    targets: Tensor  # (N,) int32, -1 where there is no original label

    def look_up(self, rows_n: NDArray[np.int64]) -> list["TableRow"]:
        """Some rows, numbered through all shards."""
        places_n = np.searchsorted(self.starts, rows_n, side="right") - 1
        keys, starts = self.keys.numpy(), self.key_starts.numpy()
        found = zip(
            places_n.tolist(),
            (rows_n - self.starts[places_n]).tolist(),
            (keys[starts[row] : starts[row + 1]].tobytes().decode() for row in rows_n),
            self.offsets.numpy()[rows_n].tolist(),
            self.digests.numpy()[rows_n].tolist(),
            self.targets.numpy()[rows_n].tolist(),
            strict=True,
        )
        return [
            TableRow(place, target, ImageMember(row=row, key=key, offset=offset, length=length, digest=digest))
            for place, row, key, (offset, length), digest, target in found
        ]


class TableRow(NamedTuple):
    """One row, as the labels know it."""

    place: int  # of its shard among all
    target: int  # the original label, -1 where there is none
    member: ImageMember


def read_group_rows(group: LabelGroup) -> GroupRows:
    """The rows of a group.

    Raises:
        DamagedStoreError: an array is missing or not as it was written.
        StoreReadError: the disk or network failed.
    """
    keys, offsets, digests, targets = group.place.map(group.read_array, COLUMNS)
    return GroupRows(keys=[str(key) for key in keys], offsets=offsets, digests=digests, targets=targets)


def make_table(groups: Sequence[GroupRows]) -> RowTable:
    """One table of all groups' rows, in shared memory."""
    keys = [key.encode() for group in groups for key in group.keys]
    return RowTable(
        starts=np.cumsum([0, *(len(group.keys) for group in groups[:-1])], dtype=np.int64),
        keys=_shared(np.frombuffer(b"".join(keys), np.uint8)),
        key_starts=_shared(np.cumsum([0, *map(len, keys)], dtype=np.int64)),
        offsets=_shared(np.concatenate([group.offsets for group in groups])),
        digests=_shared(np.concatenate([group.digests for group in groups])),
        targets=_shared(np.concatenate([group.targets for group in groups])),
    )


def _shared(values: NDArray[np.generic]) -> Tensor:
    tensor = torch.from_numpy(values.copy())
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor
