"""Joins image shards to their label groups and refuses what does not belong together.

The main process reads JSON only; whatever goes through Zarr happens in the workers, which are forked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from store.errors import JoinError, RelabelError
from store.group import LabelGroup
from store.reader import LabelStore
from store.shards import NO_LABEL, index_shard, shard_name
from store.text import first_few
from trainer.loading import load_items
from trainer.members import ImageMember, read_image
from trainer.settings import TrainSettings
from trainer.wording import brief

SHOWN_ROWS = 3  # of those in which a shard and its labels differ


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedShard:
    """An image shard and its labels; row i of the group is the shard's i-th sample."""

    path: Path
    group: LabelGroup
    start: int  # number of the shard's first row among the rows of all shards

    def fresh_group(self) -> LabelGroup:
        """The label group with nothing read yet, for a reader that drops groups to bound its memory."""
        return self.group.fresh()


def image_member(group: LabelGroup, row: int) -> ImageMember:
    """Where the labels say that a row's image lies."""
    return ImageMember(
        row=row,
        key=group.keys[row],
        offset=int(group.offsets[row, 0]),
        length=int(group.offsets[row, 1]),
        digest=int(group.digests[row]),
    )


def join_shards(shards: Sequence[Path], store: LabelStore) -> tuple[JoinedShard, ...]:
    """Find the label group of every shard, in the order given.

    Raises:
        JoinError: shards without labels; all are counted, the first named.
        DamagedStoreError: a commit record that does not hold.
    """
    if not shards:
        raise JoinError("no shards to train on")
    missing = [str(path) for path in shards if shard_name(path) not in store]
    if missing:
        raise JoinError(
            f"{store}: no labels for {len(missing)} of {len(shards)} shards: {first_few(missing)}; "
            "annotate them first (relabel-annotate run)"
        )
    joined: list[JoinedShard] = []
    start = 0
    for path in shards:
        group = store.group(shard_name(path))
        joined.append(JoinedShard(path=path, group=group, start=start))
        start += len(group)
    return tuple(joined)


def quarantined_rows(joined: Sequence[JoinedShard]) -> tuple[int, ...]:
    """Numbers, among the rows of all shards, of those whose images could not be decoded."""
    return tuple(shard.start + row for shard in joined for row in sorted(shard.group.quarantined))


def check_join(joined: Sequence[JoinedShard], settings: TrainSettings, *, num_classes: int) -> None:
    """Compare every shard with its labels before training starts: size, first and last member, labels, tail.

    Raises:
        JoinError: a shard that its labels were not made from, or labels without what the settings need.
        ShardError: a shard that differs from its labels and is damaged.
        DamagedStoreError: label arrays that cannot be read.
    """
    if settings.pools_tail and (without := [shard.group.name for shard in joined if not shard.group.has_tail]):
        raise JoinError(f"fill=tail needs labels with a tail; {first_few(without)} have none: use fill=zero or min")
    checks = _Checks(joined, num_classes=num_classes if settings.needs_original else None)
    for _ in load_items(checks, workers=min(settings.workers, len(joined))):
        pass


class _Checks(Dataset[RelabelError | None]):
    """One shard's check per item, with its error as the value."""

    def __init__(self, joined: Sequence[JoinedShard], *, num_classes: int | None) -> None:
        self.joined, self.num_classes = joined, num_classes

    def __len__(self) -> int:
        return len(self.joined)

    def __getitem__(self, i: int) -> RelabelError | None:
        shard, group = self.joined[i], self.joined[i].fresh_group()
        try:
            _check_members(shard.path, group)
            if self.num_classes is not None:
                _check_targets(shard.path, group, self.num_classes)
        except RelabelError as error:
            return error
        return None


def _check_members(path: Path, group: LabelGroup) -> None:
    """Tar size, first and last member; a shard that differs is read whole to say where."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise JoinError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        for row in {0, len(group) - 1}:
            read_image(path, image_member(group, row))
    except JoinError as error:
        raise JoinError(_differences(path, group) or str(error)) from error
    if size != group.commit.tar.size:
        where = _differences(path, group) or (
            f"{path}: {size:,} bytes, annotated with {group.commit.tar.size:,}; "
            "annotate it again (--overwrite with only this shard)"
        )
        raise JoinError(where)


def _differences(path: Path, group: LabelGroup) -> str | None:
    """The first rows in which a shard and its labels part, as a message; None if all keys and places agree."""
    in_shard = [(sample.key, [sample.offset, sample.length]) for sample in index_shard(path).samples]
    in_labels = zip(group.keys, group.offsets.tolist(), strict=True)
    rows = list(zip_longest(in_shard, in_labels))
    differing = [(row, found, labelled) for row, (found, labelled) in enumerate(rows) if found != labelled]
    if not differing:
        return None
    shown = [
        f"row {row} is {_place(found)} in the shard and {_place(labelled)} in the labels"
        for row, found, labelled in differing[:SHOWN_ROWS]
    ]
    return (
        f"{path}: differs from its labels {group} in {len(differing)} of {len(rows)} rows: {'; '.join(shown)}"
        f"{'; ...' if len(differing) > SHOWN_ROWS else ''}; annotate it again (--overwrite with only this shard)"
    )


def _place(row: tuple[str, list[int]] | None) -> str:
    return "nothing" if row is None else f"{brief(row[0])} ({row[1][1]} bytes at {row[1][0]})"


def _check_targets(path: Path, group: LabelGroup, num_classes: int) -> None:
    """Original labels of all usable rows."""
    bad = np.flatnonzero(group.usable() & ((group.targets < 0) | (group.targets >= num_classes)))
    if not len(bad):
        return
    label = int(group.targets[bad[0]])
    what = "no .cls label" if label == NO_LABEL else f"label {label} of {num_classes} classes"
    raise JoinError(
        f"{path}: {len(bad)} samples cannot be trained on their original labels; {group.keys[bad[0]]!r} has {what}: "
        "use another target, or original_weight=0"
    )
