"""Looking for damage: every object against its commit record, every value against the format, images against labels.

Letters: N rows, K ranks, H W cells (y, x).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from store.errors import DamagedStoreError, LabelNotFoundError, ShardError, StoreReadError
from store.group import LabelGroup
from store.invariants import check_maps, check_ranks, check_samples
from store.layout import BIG_ARRAYS, array_specs
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
    """
    try:
        group = store.unchecked_group(name)
    except (DamagedStoreError, LabelNotFoundError, StoreReadError) as error:
        return [Fault(group=name, array=None, problem=str(error))]
    faults: list[Fault] = []
    for spec in array_specs(group.schema, len(group), with_tail=group.has_tail):
        try:
            group.check_array(spec.name, deep=deep)
        except (DamagedStoreError, StoreReadError) as error:
            faults.append(Fault(group=name, array=spec.name, problem=str(error)))
    if not deep or faults:
        return faults
    try:
        return list(_check_values(group))
    except (DamagedStoreError, StoreReadError) as error:
        return [Fault(group=name, array=None, problem=str(error))]


def lost_groups(store: LabelStore) -> list[Fault]:
    """Folders that have a group's name and no commit record."""
    return [
        Fault(group=name, array=None, problem="no commit record: lost, or a writer was killed or is still at work")
        for name in store.without_record()
    ]


def verify_shard(store: LabelStore, path: Path) -> list[Fault]:
    """Compare an image shard with the labels made from it: every image by its key, then its place, then the tar."""
    name = shard_name(path)
    try:
        group = store.unchecked_group(name)
        problem = _difference(group, index_shard(path, hashed=True))
    except (DamagedStoreError, LabelNotFoundError, ShardError, StoreReadError) as error:
        return [Fault(group=name, array=None, problem=str(error))]
    return [] if problem is None else [Fault(group=name, array=problem[0], problem=f"{path}: {problem[1]}")]


def _check_values(group: LabelGroup) -> Iterator[Fault]:
    """What the format demands of the values of arrays that are as they were written."""
    usable = group.usable()
    classes, scores, *rest = (group.read_array(name) for name in BIG_ARRAYS if name != "tail" or group.has_tail)
    tail = rest[0] if rest else None
    bad = {row.row: row.key for row in group.commit.quarantined}
    problems = (
        check_maps(classes, scores, tail, usable, num_classes=group.schema.num_classes),
        check_ranks(classes, scores, tail, usable),
        check_samples(group.keys, group.offsets, group.targets, bad, tar_size=group.commit.tar.size),
    )
    for problem in problems:
        if problem is not None:
            yield Fault(group=group.name, array=problem[0], problem=problem[1])


def _difference(group: LabelGroup, index: ShardIndex) -> tuple[str | None, str] | None:
    """The array that an image shard contradicts, and how."""
    labelled = dict(zip(group.keys, group.digests.tolist(), strict=True))
    found: dict[str, int] = {}
    with index.path.open("rb") as file:
        for sample in index.samples:
            file.seek(sample.offset)
            found[sample.key] = image_digest(file.read(sample.length))
    if changed := [key for key in labelled.keys() | found.keys() if labelled.get(key) != found.get(key)]:
        return "digests", f"{len(changed)} images are not those that were annotated: {first_few(sorted(changed))}"
    places = [[sample.offset, sample.length] for sample in index.samples]
    if list(found) != group.keys or places != group.offsets.tolist():
        return "offsets", "packed anew: the same images at other places"
    if index.sha256 != group.commit.tar.sha256:
        return None, "not the bytes that were annotated, although every image is the same, at the same place"
    return None


def missing_shards(names: Sequence[str], shards: Sequence[Path]) -> list[str]:
    """Groups whose image shards were not given."""
    given = {shard_name(path) for path in shards}
    return [name for name in names if name not in given]
