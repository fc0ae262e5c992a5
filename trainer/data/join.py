"""Joins image shards to their label groups and refuses what does not belong together.

Neither a label store's arrays nor a server is touched before a fork: that happens in the loader's processes, which come
from a server process of their own.
"""

import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from store.errors import JoinError, RelabelError, ShardError
from store.group import LabelGroup
from store.reader import LabelStore
from store.shards.images import REQUESTS, ImageMember, read_images
from store.shards.index import NO_LABEL, ShardIndex, index_shard, shard_name
from store.shards.remote import RemoteShard, Shard
from store.text import brief, first_few
from trainer.data.loading import load_items
from trainer.settings import TrainSettings

# What the labels know of every sample besides its map: key, place in the tar, digest and original label.
#
# All rows of all shards in five flat tensors, about 60 bytes a row, in memory that the loader's processes share: each
# of
# them needs every row of the epoch sooner or later.
#
# Letters: N rows of all shards, in their order; n some of them.


COLUMNS = ("keys", "offsets", "digests", "targets")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupRows:
    """The rows of one label group."""

    keys: list[str]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of each image in its tar
    digests: NDArray[np.uint64]  # (N,)
    labels: NDArray[np.int32]  # (N,)

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
    labels: Tensor  # (N,) int32, -1 where there is no original label

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
            self.labels.numpy()[rows_n].tolist(),
            strict=True,
        )
        return [
            TableRow(place, target, ImageMember(row=row, key=key, offset=offset, length=length, digest=digest))
            for place, row, key, (offset, length), digest, target in found
        ]


class TableRow(NamedTuple):
    """One row, as the labels know it."""

    place: int  # of its shard among all
    label: int  # the original label, -1 where there is none
    member: ImageMember


def read_group_rows(group: LabelGroup) -> GroupRows:
    """The rows of a group.

    Raises:
        DamagedStoreError: an array is missing or not as it was written.
        StoreReadError: the disk or network failed.
    """
    keys, offsets, digests, labels = group.backend.map(group.read_array, COLUMNS)
    return GroupRows(keys=[str(key) for key in keys], offsets=offsets, digests=digests, labels=labels)


def make_table(groups: Sequence[GroupRows]) -> RowTable:
    """One table of all groups' rows, in shared memory."""
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


SHOWN_ROWS = 3  # of those in which a shard and its labels differ


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedShard:
    """An image shard and its labels; row i of the group is the shard's i-th sample."""

    shard: Shard
    group: LabelGroup
    start: int  # number of the shard's first row among the rows of all shards


def join_shards(shards: Sequence[Shard], store: LabelStore) -> tuple[JoinedShard, ...]:
    """Find the label group of every shard, in the order given.

    Raises:
        JoinError: shards without labels; all are counted, the first named.
        DamagedStoreError: a commit record that does not hold.
    """
    if not shards:
        raise JoinError("no shards to train on")
    there = store.backend.map(lambda shard: shard_name(shard) in store, shards)
    missing = [str(shard) for shard, is_there in zip(shards, there, strict=True) if not is_there]
    if missing:
        raise JoinError(
            f"{store}: no labels for {len(missing)} of {len(shards)} shards: {first_few(missing)}; "
            "annotate them first (relabel-annotate run)"
        )
    joined: list[JoinedShard] = []
    start = 0
    groups = store.backend.map(lambda shard: store.group(shard_name(shard)), shards)
    for shard, group in zip(shards, groups, strict=True):
        joined.append(JoinedShard(shard=shard, group=group, start=start))
        start += len(group)
    return tuple(joined)


def undecodable_rows(joined: Sequence[JoinedShard]) -> tuple[int, ...]:
    """Numbers, among the rows of all shards, of those whose images could not be decoded."""
    return tuple(shard.start + row for shard in joined for row in sorted(shard.group.undecodable))


def check_join(joined: Sequence[JoinedShard], settings: TrainSettings, *, num_classes: int) -> RowTable:
    """Compare every shard with its labels before training starts: size, first and last member, labels, tail.

    Returns:
        What the labels know of every row, for a `SampleStream`.

    Raises:
        JoinError: a shard that its labels were not made from, or labels without what the settings need.
        ShardError: a shard that differs from its labels and is damaged.
        DamagedStoreError: label arrays that cannot be read.
    """
    if settings.pools_tail:
        check_tails(joined)
    return check_rows(joined, num_classes=num_classes if settings.needs_labels else None, workers=settings.workers)


def check_tails(joined: Sequence[JoinedShard]) -> None:
    """Raise JoinError unless all labels have a tail."""
    if without := [shard.group.name for shard in joined if not shard.group.has_tail]:
        raise JoinError(f"fill=tail needs labels with a tail; {first_few(without)} have none: use fill=zero or min")


def check_rows(joined: Sequence[JoinedShard], *, num_classes: int | None, workers: int) -> RowTable:
    """The same without settings; `num_classes` is None where original labels are not needed."""
    checks = _Checks(joined, num_classes=num_classes)
    if workers:
        return make_table(list(load_items(checks, workers=min(workers, len(joined)))))
    with ThreadPoolExecutor(REQUESTS) as threads:
        found = list(threads.map(checks.__getitem__, range(len(joined))))
    return make_table(list(_raised(found)))


def _raised(found: Iterable[GroupRows | RelabelError]) -> Iterable[GroupRows]:
    for rows in found:
        if isinstance(rows, RelabelError):
            raise rows
        yield rows


class _Checks(Dataset[GroupRows | RelabelError]):
    """One shard's rows per item once they are checked, or its error as the value."""

    def __init__(self, joined: Sequence[JoinedShard], *, num_classes: int | None) -> None:
        self.joined, self.num_classes = joined, num_classes

    def __len__(self) -> int:
        return len(self.joined)

    def __getitem__(self, i: int) -> GroupRows | RelabelError:
        shard, group = self.joined[i].shard, self.joined[i].group.fresh()  # to be dropped with what it reads
        try:
            rows = read_group_rows(group)
            _check_members(shard, group, rows)
            if self.num_classes is not None:
                _check_targets(shard, group, rows, self.num_classes)
        except RelabelError as error:
            return error
        return rows


def _check_members(shard: Shard, group: LabelGroup, rows: GroupRows) -> None:
    """Tar size, first and last member; a shard that differs is read whole to say where."""
    try:
        size = shard.stat().st_size
    except OSError as error:
        raise JoinError(f"{shard}: cannot be read: {error.strerror or error}") from error
    try:
        ends = sorted({0, len(rows.keys) - 1})
        list(read_images([(shard, rows.member(row)) for row in ends]))
    except ShardError as error:
        raise JoinError(_differences(shard, group, rows) or str(error)) from error
    if size != group.commit.tar.size:
        where = _differences(shard, group, rows) or (
            f"{shard}: {size:,} bytes, annotated with {group.commit.tar.size:,}; "
            "annotate it again (--overwrite with only this shard)"
        )
        raise JoinError(where)


def _differences(shard: Shard, group: LabelGroup, rows: GroupRows) -> str | None:
    """The first rows in which a shard and its labels part, as a message; None if all keys and places agree."""
    in_shard = [(sample.key, [sample.offset, sample.length]) for sample in _index(shard).samples]
    in_labels = zip(rows.keys, rows.offsets.tolist(), strict=True)
    pairs = list(zip_longest(in_shard, in_labels))
    differing = [(row, found, labelled) for row, (found, labelled) in enumerate(pairs) if found != labelled]
    if not differing:
        return None
    shown = [
        f"row {row} is {_place(found)} in the shard and {_place(labelled)} in the labels"
        for row, found, labelled in differing[:SHOWN_ROWS]
    ]
    return (
        f"{shard}: differs from its labels {group} in {len(differing)} of {len(pairs)} rows: {'; '.join(shown)}"
        f"{'; ...' if len(differing) > SHOWN_ROWS else ''}; annotate it again (--overwrite with only this shard)"
    )


def _index(shard: Shard) -> ShardIndex:
    """A shard's index, from a copy where it lies behind a URL."""
    if not isinstance(shard, RemoteShard):
        return index_shard(shard)
    with tempfile.TemporaryDirectory(prefix="relabel-") as folder:
        copy = Path(folder, shard.name)
        try:
            shard.download(copy)
        except OSError as error:
            raise JoinError(f"{shard}: cannot be read: {error.strerror or error}") from error
        return index_shard(copy, source=shard)


def _place(row: tuple[str, list[int]] | None) -> str:
    return "nothing" if row is None else f"{brief(row[0])} ({row[1][1]} bytes at {row[1][0]})"


def _check_targets(shard: Shard, group: LabelGroup, rows: GroupRows, num_classes: int) -> None:
    """Original labels of all usable rows."""
    bad = np.flatnonzero(group.usable() & ((rows.labels < 0) | (rows.labels >= num_classes)))
    if not len(bad):
        return
    label = int(rows.labels[bad[0]])
    what = "no .cls label" if label == NO_LABEL else f"label {label} of {num_classes} classes"
    raise JoinError(
        f"{shard}: {len(bad)} samples cannot be trained on their original labels; {rows.keys[bad[0]]!r} has {what}: "
        "use another target, or original_weight=0"
    )
