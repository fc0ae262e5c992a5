"""Joining stores that several machines made with the same teacher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from store.errors import GroupExistsError, LabelNotFoundError, StoreMismatchError
from store.group import LabelGroup
from store.reader import LabelStore
from store.schema import StoreSchema
from store.writer import open_root, publish


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What became of one group."""

    group: str
    copied: bool  # or there already, from the same image shard


def merge(sources: Sequence[Path | str], into: Path | str) -> Iterator[Merged]:
    """Copy every group of the sources that `into` lacks, its bytes compared with its commit record on the way.

    Nothing is written before all stores have been found to belong together.

    Raises:
        StoreMismatchError: stores of different teachers, views, sizes or class names, or one group made from
            different image shards.
        DamagedStoreError: a group of a source is damaged; the groups before it have been copied.
        StoreWriteError: the disk or network refused.
    """
    stores = [LabelStore.open(source) for source in sources]
    schema = _common_schema(stores)
    _check_tars(stores)
    schema = open_root(into, schema)
    target = LabelStore.open(into)
    for store in stores:
        for name in store.names():
            yield Merged(group=name, copied=_copy(store.group(name), target, schema))


def _common_schema(stores: Sequence[LabelStore]) -> StoreSchema:
    """The schema of all stores; class names may be missing in some, not differ."""
    first = stores[0]
    named = next((store for store in stores if store.schema.class_names is not None), first)
    for store in stores:
        differences = first.schema.differences(store.schema)
        if store.schema.class_names not in (None, named.schema.class_names):
            differences.append(f"class_names: others than in {named}")
        if differences:
            raise StoreMismatchError(f"{store}: made differently than {first} ({'; '.join(differences)})")
    return replace(first.schema, class_names=named.schema.class_names)


def _check_tars(stores: Sequence[LabelStore]) -> None:
    """One name, one image shard."""
    seen: dict[str, tuple[str, LabelStore]] = {}
    for store in stores:
        for group in store:
            digest, other = seen.setdefault(group.name, (group.commit.tar.sha256, store))
            if digest != group.commit.tar.sha256:
                raise StoreMismatchError(f"{group}: made from another image shard than {other.place.at(group.name)}")


def _copy(group: LabelGroup, target: LabelStore, schema: StoreSchema) -> bool:
    try:
        there = target.group(group.name)
    except LabelNotFoundError:
        objects = {path: group.read_object(path) for path in group.commit.objects}
        try:
            publish(target.place, group.name, objects, group.commit, schema=schema)
        except GroupExistsError:  # another merge was quicker
            return False
        return True
    if there.commit.tar.sha256 != group.commit.tar.sha256:
        raise StoreMismatchError(f"{group}: made from another image shard than {there}")
    return False
