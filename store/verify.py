"""Looking for damage: every object against its commit record, every value against the format, images against labels.

Letters: N rows, K ranks, H W cells (y, x).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from store.errors import DamagedStoreError, LabelNotFoundError, ShardError
from store.group import LabelGroup
from store.invariants import check_ranks
from store.layout import array_specs
from store.reader import LabelStore
from store.shards import ShardIndex, image_digest, index_shard, shard_name
from store.text import first_few


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something in a store that is not as it was written, or not what its image shard holds."""

    group: str
    array: str | None  # None where the group as a whole is at fault
    problem: str


def verify_group(store: LabelStore, name: str, *, deep: bool) -> list[Fault]:
    """Everything wrong with one group of the store, each array checked by itself.

    Args:
        store: where it lies.
        name: of the group.
        deep: read every byte: sha256, the chunks' checksums, all values. Otherwise sizes only.

    Raises:
        StoreReadError: the disk or network failed; nothing can be said then.
    """
    try:
        group = store.unchecked_group(name)
    except (DamagedStoreError, LabelNotFoundError) as error:
        return [Fault(group=name, array=None, problem=str(error))]
    faults: list[Fault] = []
    for spec in array_specs(group.schema, len(group), with_tail=group.has_tail):
        try:
            group.check_array(spec.name, deep=deep)
        except DamagedStoreError as error:
            faults.append(Fault(group=name, array=spec.name, problem=str(error)))
    return faults or (list(_check_values(group)) if deep else [])


def verify_shard(store: LabelStore, path: Path) -> list[Fault]:
    """Compare an image shard with the labels made from it: the tar's digest, every key, place and image digest.

    Raises:
        StoreReadError: the disk or network failed.
    """
    name = shard_name(path)
    try:
        group = store.unchecked_group(name)
        index = index_shard(path, hashed=True)
        different = list(_different_rows(group, index))
    except (DamagedStoreError, LabelNotFoundError, ShardError) as error:
        return [Fault(group=name, array=None, problem=str(error))]
    if different:
        problem = f"{path}: {len(different)} images are not those that were annotated: {first_few(different)}"
        return [Fault(group=name, array="digests", problem=problem)]
    if index.sha256 != group.commit.tar.sha256:
        problem = f"{path}: not the bytes that were annotated, although every image is the same"
        return [Fault(group=name, array=None, problem=problem)]
    return []


def _check_values(group: LabelGroup) -> Iterator[Fault]:
    """What the format demands of the values of arrays that are as they were written."""
    try:
        maps = group.read()
    except DamagedStoreError as error:
        yield Fault(group=group.name, array=None, problem=str(error))
        return
    if problem := check_ranks(maps.classes, maps.scores, maps.tail, group.usable()):
        yield Fault(group=group.name, array=problem[0], problem=problem[1])
    if len(set(group.keys)) != len(group) or "" in group.keys:
        yield Fault(group=group.name, array="keys", problem="keys that are empty or come twice")
    if any(group.keys[bad.row] != bad.key for bad in group.commit.quarantined):
        yield Fault(group=group.name, array="keys", problem="quarantined rows of other keys")
    # In Python's integers, which do not overflow.
    if any(offset + length > group.commit.tar.size for offset, length in group.offsets.tolist()):
        yield Fault(group=group.name, array="offsets", problem="images beyond the end of their tar")
    if (group.targets < -1).any():
        yield Fault(group=group.name, array="targets", problem="labels below -1")


def _different_rows(group: LabelGroup, index: ShardIndex) -> Iterator[str]:
    """Keys of the rows whose image, key or place is another in the shard than in the labels."""
    labelled = zip(group.keys, group.offsets.tolist(), group.digests.tolist(), strict=True)
    with index.path.open("rb") as file:
        for sample, row in zip_longest(index.samples, labelled):
            if sample is None or row is None:
                yield row[0] if sample is None else sample.key
                continue
            file.seek(sample.offset)
            found = sample.key, [sample.offset, sample.length], image_digest(file.read(sample.length))
            if found != row:
                yield sample.key


def missing_shards(store: LabelStore, shards: Sequence[Path]) -> list[str]:
    """Groups of the store whose image shards were not given."""
    given = {shard_name(path) for path in shards}
    return [name for name in store.names() if name not in given]
