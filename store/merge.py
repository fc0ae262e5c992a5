"""Joining stores that several machines made with the same teacher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    LabelNotFoundError,
    RelabelError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreReadError,
)
from store.group import LabelGroup
from store.reader import LabelStore, StoreFault
from store.schema import StoreSchema
from store.writer import open_root, publish


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What became of one group of one source."""

    group: str
    outcome: Literal["copied", "there already", "damaged"]
    problem: str = ""  # with what is damaged


def merge(sources: Sequence[Path | str], into: Path | str) -> Iterator[Merged]:
    """Copy every group of the sources that `into` lacks, its bytes compared with its commit record on the way.

    Nothing is written before all stores have been found to belong together. Damaged groups are left out.

    Raises:
        StoreMismatchError: stores of different teachers, views, sizes or class names, or one group made from
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
    open_root(into, schema)
    target = LabelStore.open(into)
    for store in stores:
        for name, group in store.survey():
            yield _copy(name, group, target)


def _check_apart(sources: Sequence[Path | str], into: Path | str) -> None:
    """No store below another: it would be a folder of the other's."""
    target = Path(into).resolve()
    for source in sources:
        path = Path(source).resolve()
        if "://" not in f"{source}{into}" and path != target and (path in target.parents or target in path.parents):
            raise StoreMismatchError(f"{into}: lies in the same folders as {source}; choose a place beside it")


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
    return replace(first.schema, class_names=named.schema.class_names)


def _check_tars(stores: Sequence[LabelStore]) -> None:
    """One name, one image shard."""
    seen: dict[str, LabelGroup] = {}
    for store in stores:
        for _, group in store.survey():
            if isinstance(group, LabelGroup):
                other = seen.setdefault(group.name, group)
                if other.commit.tar.sha256 != group.commit.tar.sha256:
                    raise StoreMismatchError(f"{group}: made from another image shard than {other}")


def _copy(name: str, group: LabelGroup | StoreFault, target: LabelStore) -> Merged:
    if isinstance(group, RelabelError):
        return Merged(group=name, outcome="damaged", problem=str(group))
    try:
        target.group(name)
    except LabelNotFoundError:
        try:
            objects = {path: group.read_object(path) for path in group.commit.objects}
            publish(target.place, name, objects, group.commit)
        except GroupExistsError:  # another merge was quicker
            return Merged(group=name, outcome="there already")
        except (DamagedStoreError, StoreReadError) as error:
            return Merged(group=name, outcome="damaged", problem=str(error))
        return Merged(group=name, outcome="copied")
    except (DamagedStoreError, StoreReadError) as error:
        return Merged(group=name, outcome="damaged", problem=str(error))
    return Merged(group=name, outcome="there already")
