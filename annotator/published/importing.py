"""Published maps into a label store that matches given image shards, group by group."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import torch

from annotator.plan import Plan
from annotator.published.axes import Axes
from annotator.published.matching import read_group
from annotator.published.source import MapSource, read_map
from annotator.report import Reporter, Summary
from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    LabelMapError,
    LabelNotFoundError,
    RelabelError,
    ShardError,
    StoreMismatchError,
)
from store.reader import LabelStore
from store.schema import StoreSchema, TarIdentity
from store.shards import ShardIndex, check_unchanged, index_shard, shard_name
from store.text import first_few
from store.writer import GroupLabels, open_root, set_aside_other, write_group

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
    reporter: Reporter,
    *,
    overwrite: bool,
) -> Summary:
    """Import the maps of every shard that has no labels yet.

    Returns:
        What became of each shard; those with maps that are missing or refused are in its failures.

    Raises:
        StoreMismatchError: the store holds other maps, or the same ones imported with other axes.
        StoreWriteError: the disk refused; finished groups are kept.
    """
    summary = Summary(reporter)
    if overwrite and (kept := set_aside_other(labels, schema, {shard_name(path) for path in shards})):
        summary.set_aside(kept)
    schema = open_root(labels, schema)
    store = LabelStore.open(labels)
    if not overwrite:
        _check_axes(store, shards, axes)
    plan = Plan(shards, store, overwrite=overwrite, reporter=summary)
    for path, rows in groupby(plan, key=lambda ref: ref.path):
        index = plan.indexes.pop(path)
        deque(rows, maxlen=0)  # the plan goes on to the next shard once the rows of this one are taken
        try:
            group = _import_shard(index, labels, source, schema, axes, overwrite=overwrite)
        except GroupExistsError:  # another importer was quicker
            summary.skipped(path)
        except (ShardError, LabelMapError) as error:
            summary.failed(path, str(error))
        else:
            _report(summary, index, group)
    return summary


def _import_shard(
    index: ShardIndex, labels: Path | str, source: MapSource, schema: StoreSchema, axes: Axes, *, overwrite: bool
) -> GroupLabels:
    group = read_group(index, source, schema, axes)
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
    return group


def _check_axes(store: LabelStore, shards: Sequence[Path], axes: Axes) -> None:
    """A group that was imported before is skipped, which would hide that it was read the other way round."""
    for name in map(shard_name, shards):
        with suppress(LabelNotFoundError, DamagedStoreError):  # the plan reports these
            before = store.group(name).commit.provenance.get(AXES, axes)
            if before != axes:
                raise StoreMismatchError(
                    f"{store}: {name} was imported with --axes {before}, now it is {axes}; --overwrite imports it again"
                )


def _report(summary: Summary, index: ShardIndex, group: GroupLabels) -> None:
    for bad in group.quarantined:
        summary.quarantined(index.path, bad.key, bad.reason)
    summary.annotated(len(group.keys) - len(group.quarantined), index.path, index.size)
    summary.committed(index.path, len(group.keys))
