"""Maintenance of a store: verifying it, removing leftovers, and merging stores.

Verifying compares objects with commit records, values with the format, and images with labels. Leftovers are attempts
of killed writers and replaced groups. Stores that several machines made with the same teacher are merged into one.

Letters: N rows, K kept classes, H W cells (y, x).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    LabelNotFoundError,
    RelabelError,
    SettingsError,
    ShardError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreReadError,
)
from store.format.arrays import BIG_ARRAYS, CHUNK_ROWS
from store.format.checks import Problem, check_centred, check_maps, check_samples, check_topk_order
from store.format.schema import GROUP_FILE, StoreSchema
from store.group import LabelGroup
from store.reader import LabelStore, StoreFault
from store.shards.compare import find_difference
from store.shards.errors import shard_errors
from store.shards.images import read_image
from store.shards.index import ShardIndex, image_digest, index_shard, shard_name
from store.storage.base import Leftover
from store.text import first_few
from store.writer import StoreWriter, write_errors

INTERRUPTED = (
    "its writer was killed while replacing it; it is in {}, and the next writer or `relabel-store gc --older-than 0` "
    "puts it back"
)
NO_RECORD = "no commit record: lost, or a writer was killed or is still running"
BLOCK_ROWS = 64 * CHUNK_ROWS  # that are checked at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A difference between a store and its commit records, its format or its image shards."""

    group: str
    array: str | None  # None where the fault is of the group as a whole
    problem: str
    unread: bool = False  # the disk, the network or a writer is at fault, not the data
    refreshable: bool = False  # every image is the same: `relabel-annotate refresh` takes over labels and places


def _fault(group: str, error: RelabelError, array: str | None = None) -> Fault:
    return Fault(group=group, array=array, problem=str(error), unread=isinstance(error, StoreReadError))


def verify_group(store: LabelStore, name: str, *, deep: bool) -> list[Fault]:
    """All faults of one group; each array is checked by itself.

    Args:
        store: the store.
        name: the group's name.
        deep: read every byte: sha256, the chunks' checksums, all values; else only sizes.
    """
    try:
        group = store.unchecked_group(name)
    except (DamagedStoreError, LabelNotFoundError, StoreReadError) as error:
        return [_fault(name, error)]
    faults: list[Fault] = []
    for spec in group.specs():
        try:
            group.check_array(spec.name, deep=deep)
        except (DamagedStoreError, StoreReadError) as error:
            faults.append(_fault(name, error, spec.name))
    if not deep or faults:
        return faults
    try:
        return list(_check_values(group))
    except (DamagedStoreError, StoreReadError) as error:
        return [_fault(name, error)]


def lost_groups(store: LabelStore) -> list[Fault]:
    """Groups whose writer was killed while replacing them, and folders without a commit record, as faults."""
    interrupted = {str(leftover.only_copy_of): leftover.path for leftover in store.backend.interrupted()}
    faults = [
        Fault(group=name, array=None, problem=INTERRUPTED.format(path), unread=True)
        for name, path in interrupted.items()
    ]
    lost = [name for name in store.without_record() if name not in interrupted]
    return faults + [Fault(group=name, array=None, problem=NO_RECORD) for name in lost]


def verify_shard(store: LabelStore, path: Path) -> list[Fault]:
    """Faults of an image shard against its labels: each image by key, then the offsets, then the tar's bytes."""
    name = shard_name(path)
    try:
        group = store.unchecked_group(name)
        problem = _difference(group, index_shard(path, hashed=True))
    except (DamagedStoreError, LabelNotFoundError, ShardError, StoreReadError) as error:
        return [_fault(name, error)]
    if problem is None:
        return []
    array, text = problem
    return [Fault(group=name, array=array, problem=f"{path}: {text}", refreshable=array != "digests")]


def changed_shards(store: LabelStore, shards: Iterable[Path]) -> Iterator[str]:
    """Compare shards with their labels; yields a line for each that differs, and none for those without labels.

    Only shards whose size or time differs from the recorded ones are read.
    """
    for path in shards:
        try:
            group = store.unchecked_group(shard_name(path))
            with shard_errors(path):
                found = find_difference(path, group.commit.tar, group, group=str(group), store=str(store))
        except LabelNotFoundError:
            continue
        except (DamagedStoreError, ShardError, StoreReadError) as error:
            found = str(error)
        if found is not None:
            yield found


def _check_values(group: LabelGroup) -> Iterator[Fault]:
    """The first fault of the maps and of the samples, in arrays whose bytes are as they were written."""
    bad = {row.row: row.key for row in group.commit.undecodable}
    problems = (
        next((problem for start in range(0, len(group), BLOCK_ROWS) if (problem := _check_maps(group, start))), None),
        check_samples(group.keys, group.offsets, group.labels, bad, tar_size=group.commit.tar.size),
    )
    for problem in problems:
        if problem is not None:
            yield Fault(group=group.name, array=problem[0], problem=problem[1])


def _check_maps(group: LabelGroup, start: int) -> Problem | None:
    stop = min(start + BLOCK_ROWS, len(group))
    names = [name for name in BIG_ARRAYS if name != "tail" or group.has_tail]
    classes, scores, *rest = group.read_rows(names, slice(start, stop))
    maps = classes, scores, rest[0] if rest else None, group.usable(start, stop)
    return (
        check_maps(*maps, num_classes=group.schema.num_classes)
        or check_topk_order(*maps)
        or check_centred(scores, maps[3], group.schema)
    )


def _difference(group: LabelGroup, index: ShardIndex) -> tuple[str | None, str] | None:
    """The array that differs from an image shard and how; no array where only the tar's other bytes differ."""
    labelled = dict(zip(group.keys, group.digests.tolist(), strict=True))
    found = {sample.key: image_digest(read_image(index.path, sample)) for sample in index.samples}
    if changed := [key for key in labelled.keys() | found.keys() if labelled.get(key) != found.get(key)]:
        return "digests", f"{len(changed)} images are not those that were annotated: {first_few(sorted(changed))}"
    offsets = [[sample.offset, sample.length] for sample in index.samples]
    if list(found) != group.keys or offsets != group.offsets.tolist():
        return "offsets", "packed again: the same images at other offsets (relabel-annotate refresh takes them over)"
    labels = [sample.label for sample in index.samples]
    if changed_labels := sum(a != b for a, b in zip(labels, group.labels.tolist(), strict=True)):
        return "targets", f"{changed_labels} labels (.cls) have changed (relabel-annotate refresh takes them over)"
    if index.sha256 != group.commit.tar.sha256:
        return None, "not the bytes that were annotated, although every image is the same, at the same offset"
    return None


def missing_shards(names: Sequence[str], shards: Sequence[Path]) -> list[str]:
    """Names of groups whose image shards are not among the given ones."""
    given = {shard_name(path) for path in shards}
    return [name for name in names if name not in given]


def find_leftovers(store: LabelStore, *, min_age: float) -> Iterator[Leftover]:
    """Leftovers at least `min_age` seconds old, without those that a running writer holds.

    Raises:
        SettingsError: an age below the backend's minimum: a younger one may belong to a running writer.
    """
    backend = store.backend
    if min_age < backend.min_age:
        raise SettingsError(f"{backend}: attempts younger than {backend.min_age / 3600:g} hours may be in use there")

    def used_prefix(name: str) -> str | None:
        try:
            return store.unchecked_group(name).commit.prefix
        except LabelNotFoundError as error:
            try:
                backend.version(f"{name}/{GROUP_FILE}")
            except FileNotFoundError:
                return None
            raise DamagedStoreError(f"{backend.at(name)}: its {GROUP_FILE} holds no commit record") from error

    return (leftover for leftover in backend.leftovers(used_prefix) if leftover.age >= min_age)


def clean(store: LabelStore, leftover: Leftover) -> None:
    """Delete a leftover, or restore it where it is a group's only copy.

    Raises:
        StoreWriteError: the disk or network refused.
    """
    with write_errors(store.backend):
        store.backend.clean(leftover)


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """The outcome of merging one group of one source."""

    group: str
    outcome: Literal["copied", "there already", "damaged"]
    problem: str = ""  # of a group that is damaged, lost or cannot be read


def merge(sources: Sequence[Path | str], into: Path | str) -> Iterator[Merged]:
    """Copy the groups that `into` lacks, comparing their bytes with their commit records on the way.

    Nothing is written unless all stores belong together. Damaged groups, and folders whose commit record is lost, are
    left out.

    Raises:
        StoreMismatchError: stores of different teachers, preprocessing, sizes or class names, or one group made from
            different image shards.
        StoreWriteError: the disk or network refused; finished groups are kept.
    """
    stores = [LabelStore.open(source) for source in sources]
    _check_apart(sources, into)
    schema = _common_schema(stores)
    there = _open_if_any(into)
    _check_tars([*there, *stores])
    if there and _common_schema([*stores, *there]) != there[0].schema:
        raise StoreMismatchError(f"{there[0]}: has no class names, the others have; merge into a new store")
    target = StoreWriter.open(into, schema)
    for store in stores:
        for fault in lost_groups(store):
            yield Merged(
                group=fault.group, outcome="damaged", problem=f"{store.backend.at(fault.group)}: {fault.problem}"
            )
        for name, group in store.survey():
            yield _copy(name, group, target)


def _check_apart(sources: Sequence[Path | str], into: Path | str) -> None:
    """Refuse a store inside another one, where it would be a folder of the other."""
    target = Path(into).resolve()
    for source in sources:
        path = Path(source).resolve()
        if "://" not in f"{source}{into}" and path != target and (path in target.parents or target in path.parents):
            raise StoreMismatchError(f"{into}: is inside {source} or around it; choose a folder beside it")


def _open_if_any(location: Path | str) -> list[LabelStore]:
    try:
        return [LabelStore.open(location)]
    except StoreNotFoundError:
        return []


def _common_schema(stores: Sequence[LabelStore]) -> StoreSchema:
    """The schema of all stores; class names may be missing in some, not differ."""
    first = stores[0]
    named = next((store for store in stores if store.schema.class_names is not None), first)
    for store in stores:
        differences = first.schema.differences(store.schema, "there", "here")
        if store.schema.class_names not in (None, named.schema.class_names):
            differences.append(f"class_names: others than in {named}")
        if differences:
            raise StoreMismatchError(f"{store}: made differently than {first} ({'; '.join(differences)})")
    return msgspec.structs.replace(first.schema, class_names=named.schema.class_names)


def _check_tars(stores: Sequence[LabelStore]) -> None:
    """Refuse groups of one name that were made from different image shards."""
    seen: dict[str, LabelGroup] = {}
    for store in stores:
        for _, group in store.survey():
            if isinstance(group, LabelGroup):
                other = seen.setdefault(group.name, group)
                if other.commit.tar.sha256 != group.commit.tar.sha256:
                    raise StoreMismatchError(f"{group}: made from another image shard than {other}")


def _copy(name: str, group: LabelGroup | StoreFault, target: StoreWriter) -> Merged:
    if isinstance(group, RelabelError):
        return Merged(group=name, outcome="damaged", problem=str(group))
    try:
        if name in target.store:
            target.store.group(name)
            return Merged(group=name, outcome="there already")
        target.publish(name, {path: group.read_object(path) for path in group.commit.objects}, group.commit)
    except GroupExistsError:  # another merge has just copied it
        return Merged(group=name, outcome="there already")
    except (DamagedStoreError, StoreReadError) as error:
        return Merged(group=name, outcome="damaged", problem=str(error))
    return Merged(group=name, outcome="copied")
