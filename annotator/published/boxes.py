"""Votes on the axes from shards with object boxes: a map should show a box's class on the box, not on its mirror image.

A sample's `.json` member holds `boxes`, a list of [x1, y1, x2, y2] normalised to [0, 1] by the whole image, and
`labels`, the class id of each.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from annotator.published.files import PublishedMap
from annotator.published.source import MapSource, read_map
from annotator.published.verdict import Verdict, count_votes, mirrored, spread, spread_shards
from store.errors import LabelMapError, ShardError
from store.maps.pooling import check_box, pool_map, softmax
from store.maps.types import Box
from store.shards.index import tar_members

MAX_BOXES = 400
MAX_JSON_BYTES = 1 << 20
MIN_SIDE = 1e-6  # of a box; a smaller one shows nothing, and its area may be 0


def ask_boxes(shards: Sequence[Path], source: MapSource, *, num_classes: int) -> Verdict:
    """Vote for the order in which the maps show the boxes' classes on the boxes.

    One box votes for each image: the one that overlaps its mirror image least. Samples without boxes, without a map,
    or that cannot be read do not vote.
    """
    return count_votes(
        (
            prefers_yx(source_map, box, label, num_classes)
            for path, count in spread_shards(shards, MAX_BOXES)
            for source_map, box, label in _maps_with_box(path, source, count, num_classes)
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


def best_box(data: bytes, num_classes: int) -> tuple[Box, int] | None:
    """The box of a `.json` member that overlaps its mirror image least, with its class; None if there is none."""
    try:
        content = json.loads(data)
        pairs = list(zip(content["boxes"], content["labels"], strict=True))
        found = [(_box(box), label) for box, label in pairs if type(label) is int and 0 <= label < num_classes]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # LabelMapError is a ValueError
        return None
    return min(found, key=lambda pair: _mirror_overlap(pair[0]), default=None)


def _maps_with_box(
    path: Path, source: MapSource, count: int, num_classes: int
) -> Iterator[tuple[PublishedMap, Box, int]]:
    """Maps of a shard's samples with a box and its class. The import reports what is damaged, so it is ignored here."""
    with suppress(ShardError, OSError), path.open("rb") as file:
        members = [member for member in tar_members(path) if member.name.lower().endswith(".json")]
        for member in spread(members, count):
            file.seek(member.offset)
            found = best_box(file.read(min(member.size, MAX_JSON_BYTES)), num_classes)
            if found is None:
                continue
            folder, slash, base = member.name.rpartition("/")
            with suppress(LabelMapError):
                source_map = read_map(source, folder + slash + base.partition(".")[0], num_classes=num_classes)
                if source_map is not None:
                    yield source_map, *found


def _box(values: list[float]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    check_box((x1, y1, x2, y2))
    if min(x2 - x1, y2 - y1) < MIN_SIDE:
        raise LabelMapError(f"box {values}: too small")
    return x1, y1, x2, y2


def _mirror_overlap(box: Box) -> float:
    """The fraction of a box that its mirror image covers."""
    x1, y1, x2, y2 = box
    side = max(0.0, min(x2, y2) - max(x1, y1))
    return side * side / ((x2 - x1) * (y2 - y1))
