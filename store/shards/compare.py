"""Compares an image shard with what its label group records of it, and says what to run where they differ.

Size and time are asked first. Where they differ, the shard may have been copied or touched, and its bytes decide. Where
these differ too, labels (`.cls`) may have been corrected, or the same images packed again: then no teacher is needed.
"""

import os
import shlex
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from store.format.schema import TarIdentity
from store.shards.images import read_image
from store.shards.index import ShardIndex, hash_file, image_digest, index_shard
from store.shards.remote import Shard
from store.storage.base import RemoteStat
from store.text import brief

SHOWN_ROWS = 3  # of those that differ
SECOND = 1_000_000_000  # nanoseconds


class RecordedRows(Protocol):
    """The rows of a label group, as the annotator found them in the shard; N of them."""

    @property
    def keys(self) -> Sequence[str]:
        """N keys."""

    @property
    def offsets(self) -> NDArray[Any]:
        """(N, 2) uint64: byte offset and length of each image in its tar."""

    @property
    def digests(self) -> NDArray[Any]:
        """(N,) uint64: BLAKE2b-64 of each image's bytes."""

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int32: the dataset's labels, -1 without one."""


class _Row(NamedTuple):
    key: str
    place: tuple[int, int]
    label: int

    def __str__(self) -> str:
        return f"{brief(self.key)} ({self.place[1]} bytes at {self.place[0]})"


def looks_unchanged(now: os.stat_result | RemoteStat, tar: TarIdentity) -> bool:
    """Whether a shard has the recorded size and time, so that its bytes need not be read.

    Web servers, buckets and some disks keep whole seconds; a time without a fraction is compared in seconds.
    """
    times = now.st_mtime_ns, tar.mtime_ns
    if now.st_mtime_ns == 0 or now.st_size != tar.size:
        return False
    if any(time % SECOND == 0 for time in times):
        return times[0] // SECOND == times[1] // SECOND
    return times[0] == times[1]


def find_difference(path: Path, tar: TarIdentity, recorded: RecordedRows, *, group: str, store: str) -> str | None:
    """Compare a local shard with its labels, reading all of it where its size or time differs.

    Args:
        path: the shard.
        tar: the shard that was annotated.
        recorded: its rows.
        group: of the labels, for messages.
        store: of the group, for the command to run.

    Returns:
        A line that says what differs and what to run; None where images, keys, places and labels are the same.

    Raises:
        ShardError: the shard is damaged.
        OSError: it cannot be read.
    """
    if looks_unchanged(path.stat(), tar) or hash_file(path) == tar.sha256:
        return None
    return describe_difference(index_shard(path), recorded, group=group, store=store)


def describe_difference(index: ShardIndex, recorded: RecordedRows, *, group: str, store: str) -> str | None:
    """A line on the first rows that differ between a shard and its labels; arguments and errors as `find_difference`.

    All images are read, to find out whether the teacher is needed again.
    """
    pairs = list(zip_longest(_found(index), _recorded(recorded)))
    differing = [(row, found, labelled) for row, (found, labelled) in enumerate(pairs) if found != labelled]
    others = other_images(index, recorded)
    if differing:
        shown = [_difference(*difference) for difference in differing[:SHOWN_ROWS]]
    else:
        shown = [f"row {row}, {brief(index.samples[row].key)}, has other bytes" for row in others[:SHOWN_ROWS]]
    count = len(differing) or len(others)
    if not count:
        return None
    more = "; ..." if count > SHOWN_ROWS else ""
    return (
        f"{index.source}: differs from its labels {group} in {count} of {len(pairs)} rows: {'; '.join(shown)}{more}; "
        + advice(index, store=store, same_images=not others)
    )


def other_images(index: ShardIndex, recorded: RecordedRows) -> list[int]:
    """The rows of a shard whose images are not those that were annotated; keys and places may differ."""
    found = (image_digest(read_image(index.path, sample, source=index.source)) for sample in index.samples)
    pairs = zip_longest(found, recorded.digests.tolist())
    return [row for row, (digest, annotated) in enumerate(pairs) if digest != annotated]


def advice(index: ShardIndex, *, store: str, same_images: bool) -> str:
    """What to run for a shard that differs from its labels."""
    if not same_images:
        return "annotate it again (--overwrite with only this shard)"
    return f"its images are the same: {refresh_command(store, index.source)}"


def refresh_command(store: object, shard: Shard) -> str:
    """The command that takes over a shard's labels, for a shell."""
    return f"relabel-annotate refresh {shlex.quote(str(store))} --shards {shlex.quote(str(shard))}"


def _found(index: ShardIndex) -> list[_Row]:
    return [_Row(sample.key, (sample.offset, sample.length), sample.label) for sample in index.samples]


def _recorded(recorded: RecordedRows) -> list[_Row]:
    rows = zip(recorded.keys, recorded.offsets.tolist(), recorded.labels.tolist(), strict=True)
    return [_Row(str(key), (offset, length), label) for key, (offset, length), label in rows]


def _difference(row: int, found: _Row | None, labelled: _Row | None) -> str:
    if found is not None and labelled is not None and found[:2] == labelled[:2]:
        return f"row {row}, {brief(found.key)}, has label {found.label} in the shard and {labelled.label} in the labels"
    return f"row {row} is {found or 'nothing'} in the shard and {labelled or 'nothing'} in the labels"
