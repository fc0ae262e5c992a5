"""Compares joined shards with their labels before training, and refuses pairs that do not belong together.

Label arrays are read and servers asked only in the loader's processes or threads, never before a fork.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from store.errors import ChangedShardError, JoinError, RelabelError, ShardError
from store.format.arrays import CHUNK_ROWS
from store.group import LabelGroup
from store.maps.notices import score_notice
from store.maps.statistics import not_positive
from store.shards.compare import describe_difference, looks_unchanged, refresh_command
from store.shards.errors import shard_errors
from store.shards.images import REQUESTS, read_images
from store.shards.index import NO_LABEL, ShardIndex, hash_file, image_digest, index_shard
from store.shards.remote import RemoteShard, Shard
from store.storage.base import RemoteStat
from store.system.scratch import temporary_scratch
from store.text import brief, counted
from trainer.data.join import JoinedShard
from trainer.data.loading import load_items
from trainer.data.table import GroupRows, RowTable, make_table, read_group_rows
from trainer.settings import TrainSettings

NOTE_INTERVAL = 30.0  # seconds between two notes while shards are hashed

Note = Callable[[str], None]  # receives a line for the user


def ignore(_: str) -> None:
    """Receives a line and does nothing."""


def check_join(
    joined: Sequence[JoinedShard],
    settings: TrainSettings,
    *,
    num_classes: int,
    note: Note = ignore,
    rank: int = 0,
    world: int = 1,
) -> RowTable:
    """Compare every shard with its labels before training starts: size, time, first and last member, labels, tail.

    A local shard of another time than recorded, such as a copy, is hashed: if its bytes differ too, its own labels may
    have been corrected.

    Args:
        joined: the shards.
        settings: of the run.
        num_classes: of the store.
        note: receives lines on shards that are hashed.
        rank: of this process among the `world` that train together; they share the shards to hash.
        world: number of these processes.

    Returns:
        All rows, for a `SampleStream`.

    Raises:
        JoinError: a shard that its labels were not made from, or labels without the data that the settings need.
        ShardError: a shard that differs from its labels and is damaged.
        DamagedStoreError: label arrays that cannot be read.
    """
    return check_rows(
        joined,
        num_classes=num_classes if settings.needs_labels else None,
        workers=settings.workers,
        note=note,
        rank=rank,
        world=world,
    )


def check_rows(
    joined: Sequence[JoinedShard],
    *,
    num_classes: int | None,
    workers: int,
    note: Note = ignore,
    rank: int = 0,
    world: int = 1,
) -> RowTable:
    """Compare every shard with its labels, as `check_join`; without `num_classes`, datasets' labels are not checked."""
    checks = _Checks(joined, num_classes=num_classes, hashed=range(rank, len(joined), world))
    if workers:
        found = load_items(checks, workers=min(workers, len(joined)), preload=[__name__])
        return make_table(_noted(found, len(joined), note))
    with ThreadPoolExecutor(REQUESTS) as threads:
        return make_table(_noted(_raised(threads.map(checks.__getitem__, range(len(joined)))), len(joined), note))


def _raised(found: Iterable["CheckedRows | RelabelError"]) -> Iterator["CheckedRows"]:
    for checked in found:
        if isinstance(checked, RelabelError):
            raise checked
        yield checked


def score_notices(joined: Sequence[JoinedShard]) -> Iterator[str]:
    """Say so where the scores of the first label maps are of another kind than pooling assumes."""
    group = joined[0].group.fresh()
    stop = min(len(group), CHUNK_ROWS)
    maps = group.read(stop=stop, with_tail=False).select(group.usable(stop=stop))
    if len(maps.scores):
        yield from score_notice(float(not_positive(maps, num_classes=group.schema.num_classes).mean()))


def _noted(found: Iterable["CheckedRows"], shards: int, note: Note) -> list[GroupRows]:
    """The rows of all shards; lines say how many had to be hashed, also while that is done."""
    rows: list[GroupRows] = []
    hashed = elsewhere = 0
    last = float("-inf")
    for checked in found:
        rows.append(checked.rows)
        hashed += checked.time == "hashed"
        elsewhere += checked.time == "not compared"
        if hashed and len(rows) < shards and time.monotonic() - last > NOTE_INTERVAL:
            note(f"shards of another time than when they were annotated are hashed: {len(rows):,} of {shards:,} done")
            last = time.monotonic()
    if hashed:
        note(
            f"{counted(hashed, 'shard')} had another time than when annotated, and the same images and labels; "
            "relabel-annotate refresh records the new times, so that they need not be hashed again"
        )
    if elsewhere:
        note(
            f"{counted(elsewhere, 'shard')} behind URLs have another time than when annotated, and were not hashed; "
            "if their labels (.cls) have changed: relabel-annotate refresh"
        )
    return rows


class CheckedRows(NamedTuple):
    """The rows of a shard that belongs to its labels."""

    rows: GroupRows
    time: Literal["as recorded", "hashed", "not compared"]  # what became of another time than recorded


class _Checks(Dataset[CheckedRows | RelabelError]):
    """Checks one shard per item; the item is the shard's rows, or the error."""

    def __init__(self, joined: Sequence[JoinedShard], *, num_classes: int | None, hashed: range) -> None:
        self.joined, self.num_classes = joined, num_classes
        self.hashed = hashed  # numbers of the shards to hash if their time differs

    def __len__(self) -> int:
        return len(self.joined)

    def __getitem__(self, i: int) -> CheckedRows | RelabelError:
        shard, group = self.joined[i].shard, self.joined[i].group.fresh()  # its cache is dropped after this shard
        try:
            rows = read_group_rows(group)
            now = _check_members(shard, group, rows)
            compared = _check_time(shard, now, group, rows) if i in self.hashed else "as recorded"
            if self.num_classes is not None:
                _check_labels(shard, group, rows, self.num_classes)
        except RelabelError as error:
            return error
        return CheckedRows(rows, compared)


def _check_time(
    shard: Shard, now: os.stat_result | RemoteStat, group: LabelGroup, rows: GroupRows
) -> Literal["as recorded", "hashed", "not compared"]:
    """Hash a local shard whose time is not the recorded one; if its bytes differ, find out in what.

    A shard behind a URL would have to be downloaded, and its time there is most often that of the upload.
    """
    if looks_unchanged(now, group.commit.tar):
        return "as recorded"
    if isinstance(shard, RemoteShard):
        return "not compared"
    with shard_errors(shard):
        if hash_file(shard) != group.commit.tar.sha256 and (problem := _differences(shard, group, rows)):
            raise JoinError(problem)
    return "hashed"


def _check_members(shard: Shard, group: LabelGroup, rows: GroupRows) -> os.stat_result | RemoteStat:
    """Check the tar's size, first and last member; a shard that differs is read completely to name the rows."""
    try:
        now = shard.stat()
    except OSError as error:
        raise JoinError(f"{shard}: cannot be read: {error.strerror or error}") from error
    try:
        ends = sorted({0, len(rows.keys) - 1})
        members = [rows.member(row) for row in ends]
        images = read_images([(shard, member) for member in members])
        for member, image in zip(members, images, strict=True):
            if image_digest(image) != member.digest:  # groups of equal keys and layout may have been exchanged
                raise ChangedShardError(
                    f"{shard}: does not hold the image that was annotated as {brief(member.key)} (row {member.row}), "
                    "but another of its name; give the shard that was annotated, or annotate this one (--overwrite "
                    "with only this shard)"
                )
    except ChangedShardError as error:
        raise JoinError(_differences(shard, group, rows) or str(error)) from error
    except ShardError as error:  # a failed read: the whole shard would be read in vain
        raise JoinError(str(error)) from error
    if (size := now.st_size) != group.commit.tar.size:
        where = _differences(shard, group, rows) or (
            f"{shard}: {size:,} bytes, annotated with {group.commit.tar.size:,}; "
            f"its images are the same: {refresh_command(group.backend, shard)}"
        )
        raise JoinError(where)
    return now


def _differences(shard: Shard, group: LabelGroup, rows: GroupRows) -> str | None:
    """A line on the first rows that differ between a shard and its labels; None if all agree."""
    with _index(shard) as index, shard_errors(shard):
        return describe_difference(index, rows, group=str(group), store=str(group.backend))


@contextmanager
def _index(shard: Shard) -> Iterator[ShardIndex]:
    """A shard's index; a shard behind a URL is downloaded first, and its copy kept as long as the context."""
    if not isinstance(shard, RemoteShard):
        yield index_shard(shard)
        return
    with temporary_scratch() as folder:
        copy = folder / shard.name
        try:
            shard.download(copy)
        except OSError as error:
            raise JoinError(f"{shard}: cannot be read: {error.strerror or error}") from error
        yield index_shard(copy, source=shard)


def _check_labels(shard: Shard, group: LabelGroup, rows: GroupRows, num_classes: int) -> None:
    """Check the dataset's own labels of all usable rows."""
    bad = np.flatnonzero(group.usable() & ((rows.labels < 0) | (rows.labels >= num_classes)))
    if not len(bad):
        return
    label = int(rows.labels[bad[0]])
    found = "no .cls label" if label == NO_LABEL else f"label {label} of {num_classes} classes"
    raise JoinError(
        f"{shard}: {len(bad)} samples cannot be trained on the dataset's labels; {rows.keys[bad[0]]!r} has {found}: "
        "use another target, or original_weight=0"
    )
