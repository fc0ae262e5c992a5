"""Published maps into a label store that matches given image shards, group by group."""

from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path

import torch

from annotator.input.plan import Plan, Spool
from annotator.published.axes import Axes
from annotator.published.claims import Claims
from annotator.published.matching import read_group
from annotator.published.source import MapSource, read_map
from annotator.report import Summary
from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    LabelMapError,
    LabelNotFoundError,
    RelabelError,
    ShardError,
    StoreMismatchError,
)
from store.group import LabelGroup
from store.labels import GroupLabels
from store.reader import LabelStore
from store.schema import StoreSchema, TarIdentity
from store.shards import ShardIndex, check_unchanged, index_shard, shard_name
from store.text import first_few
from store.writer import open_root, set_aside_other, write_group

AXES = "axes"  # provenance: the order in which the imported files had their cells


def first_shape(shards: Sequence[Path], source: MapSource, *, num_classes: int) -> tuple[int, int, int]:
    """K, A, B of the first map that belongs to a sample and can be read; the others must have the same.

    Raises:
        LabelMapError: there is none; the message says why.
    """
    refused: RelabelError | None = None
    keys: list[str] = []
    for path in shards:
        try:
            samples = index_shard(path).samples
        except ShardError as error:
            refused = refused or error
            continue
        for sample in samples:
            try:
                found = read_map(source, sample.key, num_classes=num_classes)
            except LabelMapError as error:
                refused = refused or error
                continue
            if found is not None:
                return found.shape
            keys.append(sample.key)
    if refused is not None:
        raise refused
    raise LabelMapError(
        f"none of the {len(source):,} maps belongs to a sample of {len(shards)} shards, such as {first_few(keys)}; "
        "a map is found as <class folder>/<name>.pt by the last two parts of its sample's key"
    )


def import_maps(
    shards: Sequence[Path],
    labels: Path | str,
    source: MapSource,
    schema: StoreSchema,
    axes: Axes,
    summary: Summary,
    *,
    overwrite: bool,
) -> None:
    """Import the maps of every shard that has no labels yet.

    What becomes of each shard goes to the summary; those with maps that are missing or refused are in its failures.

    Raises:
        StoreMismatchError: the store holds other maps, or some that were imported with other axes.
        StoreWriteError: the disk refused; finished groups are kept.
    """
    replaced = {shard_name(path) for path in shards} if overwrite else set()
    if overwrite and (kept := set_aside_other(labels, schema, replaced)):
        summary.set_aside(kept)
    schema = open_root(labels, schema)
    store = LabelStore.open(labels)
    claims = _stored_claims(store, replaced, source, axes)
    with Spool() as spool:
        for index in Plan(shards, store, spool, overwrite=overwrite, reporter=summary).unfinished():
            try:
                group = _import_shard(index, labels, claims, schema, axes, overwrite=overwrite)
            except GroupExistsError:  # another importer was quicker
                summary.skipped(index.source)
            except (ShardError, LabelMapError) as error:
                summary.failed(index.source, str(error))
            else:
                _report(summary, index, group)


def _import_shard(
    index: ShardIndex, labels: Path | str, claims: Claims, schema: StoreSchema, axes: Axes, *, overwrite: bool
) -> GroupLabels:
    group = read_group(index, claims, schema, axes)
    check_unchanged(index)
    write_group(
        labels,
        index.name,
        group,
        schema=schema,
        tar=TarIdentity(size=index.size, mtime_ns=index.mtime_ns, sha256=index.sha256 or ""),
        provenance={"imported": "published maps", AXES: axes, "torch": str(torch.__version__)},
        overwrite=overwrite,
    )
    claims.hold(group.keys, index.name)
    return group


def _stored_claims(store: LabelStore, replaced: Set[str], source: MapSource, axes: Axes) -> Claims:
    """The maps of the groups that this run does not replace, all of which must have been imported with these axes.

    A damaged group holds none: its keys cannot be read, and it must be imported again.
    """

    def read(name: str) -> tuple[str, list[str]]:
        with suppress(LabelNotFoundError, DamagedStoreError):
            group = store.unchecked_group(name)
            _check_axes(group, axes)
            return name, [key for row, key in enumerate(group.keys) if row not in group.quarantined]
        return name, []

    claims = Claims(source)
    for name, keys in store.place.map(read, [name for name in store.names() if name not in replaced]):
        claims.hold(keys, name)
    return claims


def _check_axes(group: LabelGroup, axes: Axes) -> None:
    """A group of the other order would be skipped, or joined: half the store would be transposed."""
    before = group.commit.provenance.get(AXES, axes)
    if before != axes:
        raise StoreMismatchError(
            f"{group.place}: {group.name} was imported with --axes {before}, now it is {axes}; "
            "--overwrite with all of the store's shards imports them again"
        )


def _report(summary: Summary, index: ShardIndex, group: GroupLabels) -> None:
    for bad in group.quarantined:
        summary.quarantined(index.source, bad.key, bad.reason)
    maps = len(group.keys) - len(group.quarantined)
    summary.annotated(maps, index.source, 1.0)
    summary.committed(index.source, maps)
