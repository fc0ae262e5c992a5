"""Import of published maps into the label store of given image shards, group by group.

Shape letters: N rows, K kept classes, H W cells (y, x).
"""

from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from annotator.input.local_copies import LocalCopies
from annotator.input.plan import Plan
from annotator.published.files import MAX_IMAGE_BYTES, Axes, PublishedMap, load_map
from annotator.published.names import MapFile
from annotator.published.source import MapOwners, MapSource, read_map
from annotator.report import Summary
from store.errors import (
    DamagedStoreError,
    GroupExistsError,
    ImageError,
    LabelMapError,
    LabelNotFoundError,
    RelabelError,
    ShardError,
    StoreMismatchError,
)
from store.format.arrays import NO_CLASS
from store.format.schema import StoreSchema, Undecodable
from store.group import LabelGroup
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import Sample, ShardIndex, check_unchanged, image_digest, index_shard, shard_name
from store.text import first_few
from store.writer import GroupLabels, StoreWriter, set_aside_other

AXES = "axes"  # provenance: the order in which the imported files had their cells


def first_shape(shards: Sequence[Path], source: MapSource, *, num_classes: int) -> tuple[int, int, int]:
    """K, A, B of the first map that belongs to a sample and can be read; the import requires them of all others.

    Raises:
        LabelMapError: there is no such map; the message gives the reason.
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

    The summary receives each shard's events; shards with missing or refused maps are in its failures.

    Raises:
        StoreMismatchError: the store holds other maps, or some that were imported with other axes.
        StoreWriteError: the disk refused; finished groups are kept.
    """
    replaced = {shard_name(path) for path in shards} if overwrite else set()
    if overwrite and (kept := set_aside_other(labels, schema, replaced)):
        summary.set_aside(kept)
    writer = StoreWriter.open(labels, schema)
    owners = _stored_owners(writer.store, replaced, source, axes)
    with LocalCopies() as copies:
        for index in Plan(shards, writer.store, copies, overwrite=overwrite, reporter=summary).unfinished():
            try:
                group = _import_shard(index, writer, owners, axes, overwrite=overwrite)
            except GroupExistsError:  # another importer was faster
                summary.skipped(index.source)
            except (ShardError, LabelMapError) as error:
                summary.failed(index.source, str(error))
            else:
                _report(summary, index, group)


def _import_shard(
    index: ShardIndex, writer: StoreWriter, owners: MapOwners, axes: Axes, *, overwrite: bool
) -> GroupLabels:
    group = read_group(index, owners, writer.schema, axes)
    check_unchanged(index)
    writer.write(
        index.name,
        group,
        tar=index.identity(),
        provenance={"imported": "published maps", AXES: axes, "torch": str(torch.__version__)},
        overwrite=overwrite,
    )
    owners.add(group.keys, index.name)
    return group


def _stored_owners(store: LabelStore, replaced: Set[str], source: MapSource, axes: Axes) -> MapOwners:
    """Owners of the maps in groups that this run does not replace; all of them must have been imported with these axes.

    A damaged group owns none: its keys cannot be read, and it must be imported again.
    """

    def read(name: str) -> tuple[str, list[str]]:
        with suppress(LabelNotFoundError, DamagedStoreError):
            group = store.unchecked_group(name)
            _check_axes(group, axes)
            return name, [key for row, key in enumerate(group.keys) if row not in group.undecodable]
        return name, []

    owners = MapOwners(source)
    for name, keys in store.backend.map(read, [name for name in store.names() if name not in replaced]):
        owners.add(keys, name)
    return owners


def _check_axes(group: LabelGroup, axes: Axes) -> None:
    """Refuse a group that was imported with the other order, or half the store would be transposed."""
    before = group.commit.provenance.get(AXES, axes)
    if before != axes:
        raise StoreMismatchError(
            f"{group.backend}: {group.name} was imported with --axes {before}, now it is {axes}; "
            "--overwrite with all of the store's shards imports them again"
        )


def _report(summary: Summary, index: ShardIndex, group: GroupLabels) -> None:
    for bad in group.undecodable:
        summary.undecodable(index.source, bad.key, bad.reason)
    maps = len(group.keys) - len(group.undecodable)
    summary.annotated(maps, index.source, 1.0)
    summary.committed(index.source, maps)


def read_group(index: ShardIndex, owners: MapOwners, schema: StoreSchema, axes: Axes) -> GroupLabels:
    """All labels of one shard. A row is undecodable if it has no map and its image is damaged.

    Raises:
        ShardError: samples without a map, maps that are refused, or a shard that cannot be read.
    """
    rows = len(index.samples)
    shape = (rows, schema.top_k, *schema.map_size)
    classes, scores = np.full(shape, NO_CLASS, np.uint16), np.full(shape, np.nan, np.float16)
    digests, damaged = np.zeros(rows, np.uint64), []
    missing: list[str] = []
    refused: list[str] = []
    used: set[MapFile] = set()
    for row, (sample, image) in enumerate(_images(index)):
        digests[row] = image_digest(image)
        try:
            found = _read_oriented(owners, sample.key, schema, axes, used)
        except LabelMapError as error:
            refused.append(str(error))
            continue
        if found is not None:
            classes[row], scores[row] = found.classes, found.scores
        elif (reason := _damage(image)) is not None:
            damaged.append(Undecodable(row=row, key=sample.key, reason=reason))
        else:
            missing.append(sample.key)
    _refuse_incomplete(index, missing, refused)
    return GroupLabels.of_shard(
        index,
        classes=classes,
        scores=scores,
        tail_logsumexp=None,
        digests=digests,
        undecodable=damaged,
    )


def _images(index: ShardIndex) -> Iterator[tuple[Sample, bytes]]:
    """Every sample with the bytes of its image."""
    for sample in index.samples:
        if sample.length > MAX_IMAGE_BYTES:
            raise ShardError(
                f"{index.path}: the image of {sample.key!r} has {sample.length:,} bytes, more than {MAX_IMAGE_BYTES:,}"
            )
        yield sample, read_image(index.path, sample)


def _read_oriented(
    owners: MapOwners, key: str, schema: StoreSchema, axes: Axes, used: set[MapFile]
) -> PublishedMap | None:
    """A sample's map with its cells as (y, x); no other sample of the shard or the store may have the same map."""
    file = owners.find(key)
    if file is None:
        return None
    where = owners.source.where(file)
    if file in used:
        raise LabelMapError(f"{where}: the map of two samples; the second is {key!r}")
    used.add(file)
    found = load_map(owners.source.read(file), where, num_classes=schema.num_classes)
    found = found.turned() if axes == "xy" else found
    if found.shape != (expected := (schema.top_k, *schema.map_size)):
        raise LabelMapError(f"{where}: K, H, W are {found.shape}, expected {expected} as in the store")
    return found


def _damage(image: bytes) -> str | None:
    """The reason why an image cannot be decoded, None if it can."""
    try:
        decode_image(image)
    except ImageError as error:
        return str(error)
    return None


def _refuse_incomplete(index: ShardIndex, missing: list[str], refused: list[str]) -> None:
    """Refuse a group that lacks the map of a sample that can be trained on."""
    total = len(index.samples)
    problems = [f"{len(missing)} of {total} samples have no map: {first_few(missing)}"] if missing else []
    if refused:
        problems.append(f"{len(refused)} of {total} maps are refused, the first: {refused[0]}")
    if problems:
        raise ShardError(f"{index.path}: {'; '.join(problems)}")
