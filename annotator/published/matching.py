"""The published maps of one image shard, matched sample by sample.

Shape letters: N rows, K ranks, H W cells (y, x).
"""

from collections.abc import Iterator

import numpy as np

from annotator.published.axes import Axes
from annotator.published.claims import Claims
from annotator.published.files import PublishedMap, load_map
from annotator.published.index import MapFile
from store.errors import ImageError, LabelMapError, ShardError
from store.images import decode_image
from store.labels import GroupLabels
from store.layout import NO_CLASS
from store.schema import Quarantined, StoreSchema
from store.shards import Sample, ShardIndex, image_digest
from store.text import first_few

MAX_IMAGE_BYTES = 1 << 30  # a sparse tar may claim any number


def read_group(index: ShardIndex, claims: Claims, schema: StoreSchema, axes: Axes) -> GroupLabels:
    """All labels of one shard. A row is quarantined where there is no map and the image is damaged, too.

    Raises:
        ShardError: samples without a map, maps that are refused, or a shard that cannot be read.
    """
    samples = index.samples
    shape = (len(samples), schema.top_k, *schema.map_size)
    classes, scores = np.full(shape, NO_CLASS, np.uint16), np.full(shape, np.nan, np.float16)
    digests, damaged = np.zeros(len(samples), np.uint64), []
    missing: list[str] = []
    refused: list[str] = []
    used: set[MapFile] = set()
    for row, (sample, image) in enumerate(_images(index)):
        digests[row] = image_digest(image)
        try:
            found = _read_oriented(claims, sample.key, schema, axes, used)
        except LabelMapError as error:
            refused.append(str(error))
            continue
        if found is not None:
            classes[row], scores[row] = found.classes, found.scores
        elif (reason := _damage(image)) is not None:
            damaged.append(Quarantined(row=row, key=sample.key, reason=reason))
        else:
            missing.append(sample.key)
    _refuse_incomplete(index, missing, refused)
    return GroupLabels(
        classes=classes,
        scores=scores,
        tail=None,
        keys=tuple(sample.key for sample in samples),
        offsets=np.array([(sample.offset, sample.length) for sample in samples], np.uint64),
        digests=digests,
        targets=np.array([sample.label for sample in samples], np.int32),
        quarantined=tuple(damaged),
    )


def _images(index: ShardIndex) -> Iterator[tuple[Sample, bytes]]:
    """Every sample with the bytes of its image."""
    try:
        with index.path.open("rb") as file:
            for sample in index.samples:
                if sample.length > MAX_IMAGE_BYTES:
                    raise ShardError(
                        f"{index.path}: the image of {sample.key!r} has {sample.length:,} bytes, "
                        f"more than {MAX_IMAGE_BYTES:,}"
                    )
                file.seek(sample.offset)
                data = file.read(sample.length)
                if len(data) != sample.length:
                    raise ShardError(
                        f"{index.path}: ends within the image of {sample.key!r}; run again once it is whole"
                    )
                yield sample, data
    except OSError as error:
        raise ShardError(f"{index.path}: cannot be read: {error.strerror or error}") from error


def _read_oriented(
    claims: Claims, key: str, schema: StoreSchema, axes: Axes, used: set[MapFile]
) -> PublishedMap | None:
    """A sample's map with its cells as (y, x), which no other sample of the shard or the store has."""
    file = claims.find(key)
    if file is None:
        return None
    where = claims.source.where(file)
    if file in used:
        raise LabelMapError(f"{where}: the map of two samples; the second is {key!r}")
    used.add(file)
    found = load_map(claims.source.read(file), where, num_classes=schema.num_classes)
    found = found.turned() if axes == "xy" else found
    if found.shape != (expected := (schema.top_k, *schema.map_size)):
        raise LabelMapError(f"{where}: K, H, W are {found.shape}, those of the store {expected}")
    return found


def _damage(image: bytes) -> str | None:
    """Why an image cannot be decoded, None if it can."""
    try:
        decode_image(image)
    except ImageError as error:
        return str(error)
    return None


def _refuse_incomplete(index: ShardIndex, missing: list[str], refused: list[str]) -> None:
    """A group holds a map for every sample that can be trained on, or it is not written."""
    total = len(index.samples)
    problems = [f"{len(missing)} of {total} samples have no map: {first_few(missing)}"] if missing else []
    if refused:
        problems.append(f"{len(refused)} of {total} maps are refused, the first: {refused[0]}")
    if problems:
        raise ShardError(f"{index.path}: {'; '.join(problems)}")
