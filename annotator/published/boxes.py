"""Evidence on the axes from shards that carry boxes: the map should show a box's class on the box, not on its mirror.

A sample's `.json` member holds `boxes`, a list of [x1, y1, x2, y2] normalised to [0, 1] by the whole image, and
`labels`, the class id of each. Shape letters: K ranks, A B cells in the order of the file.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from annotator.published.axes import Box, Verdict, count_votes, mirrored, spread, spread_shards
from annotator.published.files import PublishedMap
from annotator.published.source import MapSource, read_map
from store.errors import LabelMapError, ShardError
from store.pooling import check_box, pool_map, softmax
from store.shards import tar_members

MAX_BOXES = 400
MAX_JSON_BYTES = 1 << 20
MIN_SIDE = 1e-6  # of a box; a smaller one tells nothing, and its area may be 0


def ask_boxes(shards: Sequence[Path], source: MapSource, *, num_classes: int) -> Verdict:
    """Whether the shards' boxes find their classes with the maps read as yx or as xy.

    One box votes for each image: the one that overlaps its mirror image least. Samples without boxes, without a map,
    or that cannot be read do not vote.
    """
    return count_votes(
        (
            prefers_yx(source_map, box, label, num_classes)
            for path, count in spread_shards(shards, MAX_BOXES)
            for source_map, box, label in _witnesses(path, source, count, num_classes)
        ),
        unit="boxes",
    )


def prefers_yx(source_map: PublishedMap, box: Box, label: int, num_classes: int) -> float:
    """How much more probable the class is on its box with the map read as yx than read as xy."""
    there, elsewhere = (
        softmax(pool_map(source_map.classes, source_map.scores, num_classes=num_classes, box=place))[label]
        for place in (box, mirrored(box))  # the map read as xy at a box is the map read as yx at its mirror image
    )
    return float(there - elsewhere)


def _witnesses(path: Path, source: MapSource, count: int, num_classes: int) -> Iterator[tuple[PublishedMap, Box, int]]:
    with suppress(ShardError, OSError), path.open("rb") as file:  # for the import to say, too
        members = [member for member in tar_members(path) if member.name.lower().endswith(".json")]
        for member in spread(members, count):
            file.seek(member.offset)
            witness = telling_box(file.read(min(member.size, MAX_JSON_BYTES)), num_classes)
            if witness is None:
                continue
            folder, slash, base = member.name.rpartition("/")
            with suppress(LabelMapError):  # what is wrong with a map is for the import to say
                source_map = read_map(source, folder + slash + base.partition(".")[0], num_classes=num_classes)
                if source_map is not None:
                    yield source_map, *witness


def telling_box(data: bytes, num_classes: int) -> tuple[Box, int] | None:
    """The box of a `.json` member that overlaps its mirror image least, with its class; None if there is none."""
    try:
        content = json.loads(data)
        pairs = list(zip(content["boxes"], content["labels"], strict=True))
        found = [(_box(box), label) for box, label in pairs if type(label) is int and 0 <= label < num_classes]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # LabelMapError is a ValueError
        return None
    return min(found, key=lambda pair: _self_overlap(pair[0]), default=None)


def _box(values: list[float]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    check_box((x1, y1, x2, y2))
    if min(x2 - x1, y2 - y1) < MIN_SIDE:
        raise LabelMapError(f"box {values}: too small")
    return x1, y1, x2, y2


def _self_overlap(box: Box) -> float:
    """The share of a box that its mirror image covers."""
    x1, y1, x2, y2 = box
    side = max(0.0, min(x2, y2) - max(x1, y1))
    return side * side / ((x2 - x1) * (y2 - y1))
