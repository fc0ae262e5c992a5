"""In which order a published map's cells lie: decided by a sign test, or left undecided aloud.

`yx` is the order of this project's stores, (row, column). `xy` is what the official trainer reads right, because it
takes its crop's (top, left, height, width) for x1, y1, x2, y2.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from annotator.published.files import MAX_IMAGE_BYTES, Axes, Origin, PublishedMap
from annotator.published.source import MapSource, read_map
from annotator.teacher.teacher import Teacher
from store.errors import ImageError, LabelMapError, SettingsError, ShardError, TeacherError
from store.format.schema import Preprocessing
from store.maps.pooling import check_box, pool_map, softmax
from store.maps.types import Box
from store.shards.images import decode_image, read_image
from store.shards.index import index_shard, tar_members
from store.text import first_line

DECIDED = 1e-3  # largest p at which one order is taken for the right one
MAX_SHARDS = 8  # that are read for evidence
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a number of independent witnesses say about the axes."""

    unit: str  # of the witnesses: boxes, images
    for_yx: int
    for_xy: int  # those to whom both readings are the same are in neither

    @property
    def total(self) -> int:
        """Witnesses that voted."""
        return self.for_yx + self.for_xy

    @property
    def p(self) -> float:
        """How likely so lopsided a vote would be if the axes made no difference (two-sided sign test)."""
        winners = max(self.for_yx, self.for_xy)
        tail_logsumexp = sum(math.comb(self.total, k) for k in range(winners, self.total + 1))
        return min(1.0, float(2 * tail_logsumexp / 2**self.total))

    @property
    def axes(self) -> Axes | None:
        """The order that was found; None while chance could explain the vote."""
        if self.p > DECIDED:
            return None
        return "yx" if self.for_yx > self.for_xy else "xy"

    def __str__(self) -> str:
        sure = "p < 1e-6" if self.p < 1e-6 else f"p = {self.p:.2g}"
        if self.axes is None:
            return f"axes undecided ({self.for_yx} of {self.total} {self.unit} for yx, {self.for_xy} for xy, {sure})"
        return f"axes: {self.axes} ({max(self.for_yx, self.for_xy)} of {self.total} {self.unit} agree, {sure})"


def count_votes(preferences: Iterable[float], unit: str) -> Verdict:
    """A verdict from each witness's preference: above 0 for yx, below for xy, 0 or NaN for neither."""
    values = list(preferences)
    return Verdict(unit=unit, for_yx=sum(v > 0 for v in values), for_xy=sum(v < 0 for v in values))


def mirrored(box: Box) -> Box:
    """The box with its axes exchanged: where a reading of the map in the other order would look for it.

    >>> mirrored((0.5, 0.0, 0.75, 0.25))
    (0.0, 0.5, 0.25, 0.75)
    """
    x1, y1, x2, y2 = box
    return y1, x1, y2, x2


def spread(items: Sequence[T], count: int) -> Iterator[T]:
    """At most `count` items, evenly apart, so that a data set sorted by class is seen whole.

    >>> list(spread("abcdefgh", 3))
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return (items[i * len(items) // count] for i in range(count))


def spread_shards(shards: Sequence[Path], witnesses: int) -> Iterator[tuple[Path, int]]:
    """A few shards, and how many witnesses to take from each."""
    chosen = list(spread(shards, MAX_SHARDS))
    return ((path, -(-witnesses // len(chosen))) for path in chosen)


# Evidence on the axes from shards that carry boxes: the map should show a box's class on the box, not on its mirror.
#
# A sample's `.json` member holds `boxes`, a list of [x1, y1, x2, y2] normalised to [0, 1] by the whole image, and
# `labels`, the class id of each. Shape letters: K ranks, A B cells in the order of the file.


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
            for source_map, box, label in _box_witnesses(path, source, count, num_classes)
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


def _box_witnesses(
    path: Path, source: MapSource, count: int, num_classes: int
) -> Iterator[tuple[PublishedMap, Box, int]]:
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


# Evidence on the axes from a teacher: the map's target for a crop should be what the teacher sees in the crop.
#
# Shape letters: B batch, C classes, h w pixels.


MAX_IMAGES = 200
CROP = 0.4  # side of a crop, as a share of the image's
PAIRS = 2  # crops above the diagonal an image, each with its mirror image below
Witness = tuple[PublishedMap, NDArray[np.uint8]]


def crop_size(image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a crop in pixels, for an image squashed to this height and width.

    Crops are not resized, so the teacher sees them at the scale at which the maps' teacher saw the image.
    """
    return max(1, round(CROP * image[0])), max(1, round(CROP * image[1]))


def ask_teacher(
    shards: Sequence[Path], source: MapSource, teacher: Teacher, preprocessing: Preprocessing, *, num_classes: int
) -> Verdict:
    """Whether a teacher's predictions on off-centre crops agree with the maps read as yx or as xy.

    Args:
        shards: Of the images; a few hundred are read, spread over all shards.
        source: Of the maps.
        teacher: Any classifier of the same classes, it has to run on crops of `crop_size(view.input_size)` pixels.
        preprocessing: How the maps' images were resized.
        num_classes: C.

    Raises:
        SettingsError: the teacher has other classes.
        TeacherError: it does not run on crops.
    """
    if teacher.num_classes != num_classes:
        raise SettingsError(f"teacher {teacher.name!r} has {teacher.num_classes} classes, the maps {num_classes}")
    rng = np.random.default_rng(0)
    preferences = (
        _prefers_yx(source_map, pixels, teacher, random_boxes(rng), num_classes)
        for path, count in spread_shards(shards, MAX_IMAGES)
        for source_map, pixels in _crop_witnesses(path, source, count, preprocessing, num_classes)
    )
    return count_votes(preferences, unit="images")


def random_boxes(rng: np.random.Generator) -> list[Box]:
    """Pairs of boxes, one right of and above the diagonal and its mirror image; no two of a pair overlap."""
    above: list[Box] = []
    for _ in range(PAIRS):
        top = rng.uniform(0, 1 - 2 * CROP)
        left = rng.uniform(top + CROP, 1 - CROP)
        above.append((left, top, left + CROP, top + CROP))
    return above + [mirrored(box) for box in above]


def _prefers_yx(
    source_map: PublishedMap, pixels_hw3: NDArray[np.uint8], teacher: Teacher, boxes: list[Box], num_classes: int
) -> float:
    """How much better the maps' targets predict the teacher, in nats over all crops, read as yx than as xy."""
    seen_BC = _predict(teacher, np.stack([cut(pixels_hw3, box) for box in boxes]))
    gain = 0.0
    for seen_C, box in zip(seen_BC, boxes, strict=True):
        as_yx, as_xy = (
            _log_softmax(pool_map(source_map.classes, source_map.scores, num_classes=num_classes, box=place))
            for place in (box, mirrored(box))
        )
        gain += float(seen_C @ (as_yx - as_xy))
    return gain


@torch.inference_mode()
def _predict(teacher: Teacher, crops_Bhw3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, C) float32 probabilities."""
    pixels_B3hw = torch.from_numpy(crops_Bhw3).permute(0, 3, 1, 2)
    try:
        logits_BC = teacher.network(teacher.normalise(pixels_B3hw)).float()
    except (RuntimeError, AssertionError) as error:
        raise TeacherError(
            f"teacher {teacher.name!r} does not run on crops of {pixels_B3hw.shape[2:]} pixels: {first_line(error)}"
        ) from error
    return np.asarray(logits_BC.softmax(1).cpu().numpy(), np.float32)


def _log_softmax(logits_C: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits_C - logits_C.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float32)


def cut(pixels_hw3: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels of a box whose sides are `CROP` of the image's; all crops of an image have one size."""
    image, crop = pixels_hw3.shape[:2], crop_size(pixels_hw3.shape[:2])
    top, left = (min(round(low * image[axis]), image[axis] - crop[axis]) for axis, low in ((0, box[1]), (1, box[0])))
    return pixels_hw3[top : top + crop[0], left : left + crop[1]]


def _crop_witnesses(
    path: Path, source: MapSource, count: int, preprocessing: Preprocessing, num_classes: int
) -> Iterator[Witness]:
    """Maps and squashed images of a shard; what is missing or damaged does not vote, the import will name it."""
    with suppress(ShardError):
        for sample in spread(index_shard(path).samples, count):
            with suppress(LabelMapError, ImageError):
                source_map = read_map(source, sample.key, num_classes=num_classes)
                if source_map is not None and sample.length <= MAX_IMAGE_BYTES:
                    yield source_map, _squash(decode_image(read_image(path, sample)), preprocessing)


def _squash(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    height, width = preprocessing.input_size
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


# Finding out in which order the maps' cells lie: boxes are asked first, they cost nothing; then a teacher.


CHOICES = "--axes yx or --axes xy (docs/published_maps.md says how to tell)"


def find_axes(
    shards: Sequence[Path], source: MapSource, origin: Origin, load_teacher: Callable[[], Teacher] | None
) -> tuple[Axes, Verdict]:
    """Decide between yx and xy, or refuse to.

    Args:
        shards: Of the images; some of them are read.
        source: Of the maps.
        origin: Class count and view of the maps.
        load_teacher: Builds the teacher to ask where boxes do not decide; None if there is none.

    Returns:
        The order, and the verdict that says how sure it is.

    Raises:
        SettingsError: no evidence, or not enough of it; or a teacher of other classes.
        TeacherError: the teacher cannot be built, or does not run on crops.
    """
    verdict = ask_boxes(shards, source, num_classes=origin.num_classes)
    if verdict.axes is None and load_teacher is not None:
        verdict = ask_teacher(shards, source, load_teacher(), origin.preprocessing(), num_classes=origin.num_classes)
        if verdict.axes is None:
            raise SettingsError(f"{verdict}: the maps may be another teacher's or other images'; else pass {CHOICES}")
    if verdict.axes is None:
        why = str(verdict) if verdict.total else "the maps do not say how their axes lie, and the shards have no boxes"
        raise SettingsError(f"{why}: pass --teacher NAME to compare its predictions, or {CHOICES}")
    return verdict.axes, verdict
