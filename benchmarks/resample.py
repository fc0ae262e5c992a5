"""Draws the rows of large stores at random from the label maps of a small one.

Letters: N rows, K kept classes of a cell, H W cells (y, x).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from store.errors import SettingsError
from store.format.arrays import CHUNK_ROWS
from store.format.schema import StoreSchema, TarIdentity
from store.maps.types import LabelRows
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter

T = TypeVar("T", bound=np.generic)
GROUP_ROWS = 1_251  # ImageNet-1k's 1,281,167 images in 1,024 shards
PROVENANCE = {"timm": "none", "torch": "none", "precision": "none", "device": "none"}
HEADER = 512  # bytes of a tar member's header; members are padded to a multiple of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The size of a store to write."""

    rows: int
    groups: int

    def sizes(self) -> list[int]:
        """Rows of each group, at most one apart."""
        each, more = divmod(self.rows, self.groups)
        return [each + (i < more) for i in range(self.groups)]

    def tenth(self) -> "Plan":
        """A tenth of the rows, in groups of about as many."""
        return Plan(rows=max(1, round(self.rows / 10)), groups=max(1, round(self.groups / 10)))


def read_maps(location: str) -> LabelRows:
    """Read all maps of a store but those of undecodable images.

    Raises:
        SettingsError: there are fewer maps than a chunk has rows, or some have no tail.
    """
    parts = [(group.read(), group.usable()) for group in LabelStore.open(location)]
    tails_logsumexp = [maps.tail_logsumexp[usable] for maps, usable in parts if maps.tail_logsumexp is not None]
    if sum(int(usable.sum()) for _, usable in parts) < CHUNK_ROWS or len(tails_logsumexp) < len(parts):
        raise SettingsError(f"{location}: needs at least {CHUNK_ROWS} label maps, all with a tail")
    return LabelRows(
        classes=np.concatenate([maps.classes[usable] for maps, usable in parts]),
        scores=np.concatenate([maps.scores[usable] for maps, usable in parts]),
        tail_logsumexp=np.concatenate(tails_logsumexp),
    )


def draw_maps(maps: LabelRows, count: int, rng: np.random.Generator) -> LabelRows:
    """Draw rows from the given maps, each mirrored or not in x and in y.

    No map comes twice within a chunk, whose rows are compressed together: a copy would take next to no bytes.
    """
    chunks = -(-count // CHUNK_ROWS)
    picks = [rng.permutation(len(maps.classes))[:CHUNK_ROWS] for _ in range(chunks)]
    rows = np.concatenate(picks)[:count]
    mirrored = {axis: rng.random(count) < 0.5 for axis in (-1, -2)}

    def drawn(values: NDArray[T]) -> NDArray[T]:
        found = values[rows]
        for axis, which in mirrored.items():
            found[which] = np.flip(found[which], axis)
        return found

    tail_logsumexp = None if maps.tail_logsumexp is None else drawn(maps.tail_logsumexp)
    return LabelRows(classes=drawn(maps.classes), scores=drawn(maps.scores), tail_logsumexp=tail_logsumexp)


def middle_class(classes_KHW: NDArray[np.uint16]) -> int:
    """Top-1 class of the middle cell. It is a row's label, so that a reader can check which row a map belongs to."""
    return int(classes_KHW[0, classes_KHW.shape[1] // 2, classes_KHW.shape[2] // 2])


def make_labels(maps: LabelRows, first: int, rng: np.random.Generator, synsets: NDArray[np.int64]) -> GroupLabels:
    """The labels of a group whose first row is row `first` of the store, with keys like ImageNet's n01440764_10026."""
    count = len(maps.classes)
    labels = np.array([middle_class(classes) for classes in maps.classes], np.int32)
    lengths = rng.integers(60_000, 160_000, count)
    # An image's header, its padded bytes, and the header and text of its class.
    members = HEADER + -(-lengths // HEADER) * HEADER + 2 * HEADER
    return GroupLabels(
        classes=maps.classes,
        scores=maps.scores,
        tail_logsumexp=maps.tail_logsumexp,
        keys=tuple(f"n{synsets[label]:08}_{first + row}" for row, label in enumerate(labels)),
        offsets=np.stack([HEADER + np.cumsum(members) - members, lengths], axis=1).astype(np.uint64),
        digests=rng.integers(0, 1 << 64, count, np.uint64),
        labels=labels,
    )


def draw_groups(maps: LabelRows, schema: StoreSchema, plan: Plan) -> Iterator[tuple[str, GroupLabels, TarIdentity]]:
    """Yield the name, labels and tar of each group, a pure function of the arguments."""
    synsets = np.random.default_rng(0).choice(1 << 24, schema.num_classes, replace=False)
    first = 0
    for i, count in enumerate(plan.sizes()):
        rng = np.random.default_rng((1, i))
        labels = make_labels(draw_maps(maps, count, rng), first, rng, synsets)
        end = int(labels.offsets[-1].sum()) + 4 * HEADER
        yield f"imagenet1k-train-{i:04}", labels, TarIdentity(size=end, mtime_ns=i, sha256=rng.bytes(32).hex())
        first += count


def write_resampled(given: str, location: Path | str, plan: Plan, schema: StoreSchema | None = None) -> None:
    """Write a store of resampled groups, with the given store's schema or another one."""
    writer = StoreWriter.open(location, schema or LabelStore.open(given).schema)
    for name, labels, tar in draw_groups(read_maps(given), writer.schema, plan):
        writer.write(name, labels, tar=tar, provenance=PROVENANCE)
