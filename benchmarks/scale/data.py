"""A store at the size of a whole dataset, for `benchmarks.scale`: everything but the pixels, of real label maps.

Letters: N rows, K ranks, H W cells (y, x).
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.cli.progress import track
from store.errors import SettingsError
from store.format.arrays import CHUNK_ROWS
from store.format.schema import StoreSchema, TarIdentity
from store.maps.types import LabelRows
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter

T = TypeVar("T", bound=np.generic)
LOOKUPS = 1000
HEADER = 512  # bytes; of a tar member, and what members are padded to
PROVENANCE = {"timm": "none", "torch": "none", "precision": "none", "device": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How large a store is to be."""

    rows: int
    groups: int

    def sizes(self) -> list[int]:
        """Rows of each group, almost equally many."""
        each, more = divmod(self.rows, self.groups)
        return [each + (i < more) for i in range(self.groups)]

    def tenth(self) -> "Plan":
        """A tenth of the rows, in groups of about as many."""
        return Plan(rows=max(1, round(self.rows / 10)), groups=max(1, round(self.groups / 10)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A key to be found, and where it was written."""

    key: str
    group: str
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What writing a store took."""

    seconds: float  # in `GroupLabels` and `write_group`; drawing the rows is not the writer's work
    wanted: list[Wanted]


def read_maps(location: str) -> LabelRows:
    """All usable maps of a store.

    Raises:
        SettingsError: too few to fill a chunk with different ones, or without tail.
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


def bytes_at_most(schema: StoreSchema, rows: int) -> int:
    """What a store of so many rows can take, if its maps cannot be compressed at all."""
    cells = schema.map_size[0] * schema.map_size[1]
    return rows * (4 * schema.top_k * cells + 2 * cells + 100)


def draw_maps(maps: LabelRows, count: int, rng: np.random.Generator) -> LabelRows:
    """Rows drawn from the given maps, each mirrored or not in x and in y.

    Within a chunk, whose rows are compressed together, no map comes twice: a copy would cost next to nothing, which is
    not so in real data.
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
    """The class that leads in the middle cell: the label given to a row, by which a reader knows that its map is it."""
    return int(classes_KHW[0, classes_KHW.shape[1] // 2, classes_KHW.shape[2] // 2])


def make_labels(maps: LabelRows, first: int, rng: np.random.Generator, synsets: NDArray[np.int64]) -> GroupLabels:
    """A group's rows with keys like ImageNet's, such as n01440764_10026, the first of them row `first` of the store."""
    count = len(maps.classes)
    targets = np.array([middle_class(classes) for classes in maps.classes], np.int32)
    lengths = rng.integers(60_000, 160_000, count)
    # Before each image its header, after it the padding and the header and text of its class.
    members = HEADER + -(-lengths // HEADER) * HEADER + 2 * HEADER
    return GroupLabels(
        classes=maps.classes,
        scores=maps.scores,
        tail_logsumexp=maps.tail_logsumexp,
        keys=tuple(f"n{synsets[target]:08}_{first + row}" for row, target in enumerate(targets)),
        offsets=np.stack([HEADER + np.cumsum(members) - members, lengths], axis=1).astype(np.uint64),
        digests=rng.integers(0, 1 << 64, count, np.uint64),
        labels=targets,
    )


def draw_groups(maps: LabelRows, schema: StoreSchema, plan: Plan) -> Iterator[tuple[str, GroupLabels, TarIdentity]]:
    """Names, rows and tars of all groups, a pure function of the arguments."""
    synsets = np.random.default_rng(0).choice(1 << 24, schema.num_classes, replace=False)
    first = 0
    for i, count in enumerate(plan.sizes()):
        rng = np.random.default_rng((1, i))
        labels = make_labels(draw_maps(maps, count, rng), first, rng, synsets)
        end = int(labels.offsets[-1].sum()) + 4 * HEADER
        yield f"imagenet1k-train-{i:04}", labels, TarIdentity(size=end, mtime_ns=i, sha256=rng.bytes(32).hex())
        first += count


def write_store(given: str, path: Path, plan: Plan) -> Written:
    """Write all groups, one after the other, as an annotator does: encoded, synced, committed."""
    maps, schema = read_maps(given), LabelStore.open(given).schema
    writer = StoreWriter.open(
        path, msgspec.structs.replace(schema, teacher=msgspec.structs.replace(schema.teacher, architecture="resampled"))
    )
    seconds, first = 0.0, 0
    wanted: list[Wanted] = []
    looked_up = np.random.default_rng(2).integers(0, plan.rows, LOOKUPS)
    groups = draw_groups(maps, schema, plan)
    for _ in track(range(plan.groups), "write"):
        name, labels, tar = next(groups)
        start = time.perf_counter()
        labels = replace(labels)  # checked anew, as in the annotator
        writer.write(name, labels, tar=tar, provenance=PROVENANCE)
        seconds += time.perf_counter() - start
        here = looked_up[(looked_up >= first) & (looked_up < first + len(labels.keys))] - first
        wanted += [Wanted(key=labels.keys[row], group=name, row=int(row)) for row in here]
        first += len(labels.keys)
    return Written(seconds=seconds, wanted=wanted)


def on_disk(path: Path) -> dict[str, int]:
    """Files, folders, bytes in the files, and bytes that the disk gives them."""
    found = {"files": 0, "folders": 0, "bytes": 0, "allocated": 0}
    for folder, _, files in os.walk(path):
        found["folders"] += 1
        for file in files:
            info = os.lstat(os.path.join(folder, file))
            found["files"] += 1
            found["bytes"] += info.st_size
            found["allocated"] += 512 * info.st_blocks
    return found
