"""Votes on the axes from shards with object boxes: a map should show a box's class on the box, not on its mirror image.

A sample's `.json` member holds `boxes`, a list of [x1, y1, x2, y2] normalised to [0, 1] by the whole image, and
`labels`, the class id of each.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from annotator.published.files import MAX_IMAGE_BYTES, PublishedMap
from annotator.published.source import MapSource, read_map
from annotator.published.verdict import Verdict, count_votes, mirrored, spread, spread_shards
from store.errors import ImageError, LabelMapError, ShardError
from store.format.schema import CENTRE, Preprocessing
from store.maps.pooling import pool_map, softmax
from store.maps.regions import check_box, cut_box, labelled_region
from store.maps.types import WHOLE_IMAGE, Box
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import Sample, index_shard, tar_members

MAX_BOXES = 400
MAX_JSON_BYTES = 1 << 20
MIN_SIDE = 1e-6  # of a box; a smaller one shows nothing, and its area may be 0


def ask_boxes(shards: Sequence[Path], source: MapSource, preprocessing: Preprocessing, *, num_classes: int) -> Verdict:
    """Vote for the order in which the maps show the boxes' classes on the boxes.

    One box votes for each image: the one that overlaps its mirror image least. Samples without boxes, without a map,
    or that cannot be read do not vote, nor do boxes outside what the maps cover.
    """
    return count_votes(
        (
            prefers_yx(source_map, box, label, num_classes)
            for path, count in spread_shards(shards, MAX_BOXES)
            for source_map, box, label in _maps_with_box(path, source, count, preprocessing, num_classes)
        ),
        unit="boxes",
    )


def prefers_yx(source_map: PublishedMap, box: Box, label: int, num_classes: int) -> float:
    """Probability of the class on its box with the map read as yx, less that with the map read as xy."""
    as_yx, as_xy = (
        softmax(pool_map(source_map.classes, source_map.scores, num_classes=num_classes, box=read_at))[label]
        for read_at in (box, mirrored(box))
    )
    return float(as_yx - as_xy)


def best_box(data: bytes, num_classes: int, region: Box = WHOLE_IMAGE) -> tuple[Box, int] | None:
    """The box of a `.json` member that overlaps its mirror image least, with its class; None if there is none.

    Args:
        data: of the member.
        num_classes: C.
        region: the part of the image that its map covers; boxes are cut to it, and normalised by it.
    """
    try:
        content = json.loads(data)
        pairs = list(zip(content["boxes"], content["labels"], strict=True))
        boxes = [
            (cut_box(_box(box), region), label)
            for box, label in pairs
            if type(label) is int and 0 <= label < num_classes
        ]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # LabelMapError is a ValueError
        return None
    found = [(box, label) for box, label in boxes if box is not None and _least_side(box) >= MIN_SIDE]
    return min(found, key=lambda pair: _mirror_overlap(pair[0]), default=None)


def _maps_with_box(
    path: Path, source: MapSource, count: int, preprocessing: Preprocessing, num_classes: int
) -> Iterator[tuple[PublishedMap, Box, int]]:
    """Maps of a shard's samples with a box and its class. The import reports what is damaged, so it is ignored here."""
    with suppress(ShardError, OSError), path.open("rb") as file:
        members = [member for member in tar_members(path) if member.name.lower().endswith(".json")]
        samples = {sample.key: sample for sample in index_shard(path).samples} if preprocessing.mode == CENTRE else {}
        for member in spread(members, count):
            folder, slash, base = member.name.rpartition("/")
            key = folder + slash + base.partition(".")[0]
            file.seek(member.offset)
            data = file.read(min(member.size, MAX_JSON_BYTES))
            with suppress(LabelMapError, ImageError):
                region = WHOLE_IMAGE if preprocessing.mode != CENTRE else _region(path, samples.get(key), preprocessing)
                found = best_box(data, num_classes, region)
                source_map = None if found is None else read_map(source, key, num_classes=num_classes)
                if found is not None and source_map is not None:
                    yield source_map, *found


def _region(path: Path, sample: Sample | None, preprocessing: Preprocessing) -> Box:
    """The part of a sample's image that its map covers."""
    if sample is None or sample.length > MAX_IMAGE_BYTES:
        raise ImageError(f"{path}: no image to read")
    height, width = decode_image(read_image(path, sample)).shape[:2]
    return labelled_region(preprocessing, height, width)


def _box(values: list[float]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    check_box((x1, y1, x2, y2))
    return x1, y1, x2, y2


def _least_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _mirror_overlap(box: Box) -> float:
    """The fraction of a box that its mirror image covers."""
    x1, y1, x2, y2 = box
    side = max(0.0, min(x2, y2) - max(x1, y1))
    return side * side / ((x2 - x1) * (y2 - y1))
