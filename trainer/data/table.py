"""The rows of all label groups without their maps: keys, places of the images, digests and labels, in shared memory.

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

COLUMNS = ("keys", "offsets", "digests", "targets")  # arrays of a label group besides its maps


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupRows:
    """The rows of one label group, without their maps."""

    keys: list[str]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of each image in its tar
    digests: NDArray[np.uint64]  # (N,)
    labels: NDArray[np.int32]  # (N,)

    def member(self, row: int) -> ImageMember:
        """A row's image in the tar, as recorded in the labels."""
        return ImageMember.recorded(row, self.keys[row], self.offsets[row], self.digests[row])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowTable:
    """The rows of all shards in flat tensors, about 60 bytes a row, in memory that the loader's processes share."""

    starts: NDArray[np.int64]  # first row of each group
    keys: Tensor  # uint8, the keys' UTF-8 bytes one after the other
    key_starts: Tensor  # (N + 1,) int64, first byte of each key, and the end of the last one
    offsets: Tensor  # (N, 2) uint64, byte offset and length of each image in its tar
    digests: Tensor  # (N,) uint64
    labels: Tensor  # (N,) int32, the dataset's own labels, -1 without one

    def look_up(self, rows_n: NDArray[np.int64]) -> list["TableRow"]:
        """Some rows by their numbers through all shards."""
        shards_n = np.searchsorted(self.starts, rows_n, side="right") - 1
        keys, starts = self.keys.numpy(), self.key_starts.numpy()
        found = zip(
            shards_n.tolist(),
            (rows_n - self.starts[shards_n]).tolist(),
            (keys[starts[row] : starts[row + 1]].tobytes().decode() for row in rows_n),
            self.offsets.numpy()[rows_n].tolist(),
            self.digests.numpy()[rows_n].tolist(),
            self.labels.numpy()[rows_n].tolist(),
            strict=True,
        )
        return [
            TableRow(shard_number, label, ImageMember.recorded(row, key, span, digest))
            for shard_number, row, key, span, digest, label in found
        ]


class TableRow(NamedTuple):
    """One row of the table."""

    shard_number: int  # of its shard among all
    label: int  # the dataset's own label, -1 without one
    member: ImageMember


def read_group_rows(group: LabelGroup) -> GroupRows:
    """Read the rows of a group.

    Raises:
        DamagedStoreError: an array is missing or differs from its commit record.
        StoreReadError: the disk or network failed.
    """
    keys, offsets, digests, labels = group.backend.map(group.read_array, COLUMNS)
    return GroupRows(keys=[str(key) for key in keys], offsets=offsets, digests=digests, labels=labels)


def make_table(groups: Sequence[GroupRows]) -> RowTable:
    """Join all groups' rows to one table in shared memory."""
    keys = [key.encode() for group in groups for key in group.keys]
    return RowTable(
        starts=np.cumsum([0, *(len(group.keys) for group in groups[:-1])], dtype=np.int64),
        keys=_shared(np.frombuffer(b"".join(keys), np.uint8)),
        key_starts=_shared(np.cumsum([0, *map(len, keys)], dtype=np.int64)),
        offsets=_shared(np.concatenate([group.offsets for group in groups])),
        digests=_shared(np.concatenate([group.digests for group in groups])),
        labels=_shared(np.concatenate([group.labels for group in groups])),
    )


def _shared(values: NDArray[np.generic]) -> Tensor:
    tensor = torch.from_numpy(values.copy())
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor
