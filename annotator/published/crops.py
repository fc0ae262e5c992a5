"""Votes on the axes from a teacher: a map's target for a crop should be what the teacher predicts on the crop.

Shape letters: B batch, C classes, h w pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from annotator.input.decode import squash
from annotator.published.files import MAX_IMAGE_BYTES, PublishedMap
from annotator.published.source import MapSource, read_map
from annotator.published.verdict import Verdict, count_votes, mirrored, spread, spread_shards
from annotator.teacher.teacher import Teacher
from store.errors import ImageError, LabelMapError, SettingsError, ShardError, TeacherError
from store.format.schema import Preprocessing
from store.maps.pooling import pool_map
from store.maps.regions import cut_image
from store.maps.types import Box
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import index_shard
from store.text import first_line

MAX_IMAGES = 200
CROP = 0.4  # side of a crop, as a fraction of the image's
PAIRS = 2  # crops above the diagonal an image, each with its mirror image below


def ask_teacher(
    shards: Sequence[Path], source: MapSource, teacher: Teacher, preprocessing: Preprocessing, *, num_classes: int
) -> Verdict:
    """Vote for the order in which the maps predict a teacher's output on off-centre crops.

    Args:
        shards: of the images; a few hundred are read, spread over all shards.
        source: of the maps.
        teacher: any classifier of the same classes that runs on crops of `crop_size(preprocessing.input_size)` pixels.
        preprocessing: how the maps' images were resized.
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
        for source_map, pixels in maps_with_image(path, source, count, preprocessing, num_classes)
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


def crop_size(image: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a crop in pixels, for an image squashed to this height and width.

    Crops are not resized, so the teacher sees them at the scale at which the maps' teacher saw the image.
    """
    return max(1, round(CROP * image[0])), max(1, round(CROP * image[1]))


def cut(pixels_hw3: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels of a box whose sides are `CROP` of the image's; all crops of an image have one size."""
    image, crop = pixels_hw3.shape[:2], crop_size(pixels_hw3.shape[:2])
    top, left = (min(round(low * image[axis]), image[axis] - crop[axis]) for axis, low in ((0, box[1]), (1, box[0])))
    return pixels_hw3[top : top + crop[0], left : left + crop[1]]


def _prefers_yx(
    source_map: PublishedMap, pixels_hw3: NDArray[np.uint8], teacher: Teacher, boxes: list[Box], num_classes: int
) -> float:
    """Log-likelihood of the teacher's predictions with the map read as yx, less that as xy; nats over all crops."""
    predicted_BC = _predict(teacher, np.stack([cut(pixels_hw3, box) for box in boxes]))
    gain = 0.0
    for predicted_C, box in zip(predicted_BC, boxes, strict=True):
        as_yx, as_xy = (
            _log_softmax(pool_map(source_map.classes, source_map.scores, num_classes=num_classes, box=read_at))
            for read_at in (box, mirrored(box))
        )
        gain += float(predicted_C @ (as_yx - as_xy))
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


def maps_with_image(
    path: Path, source: MapSource, count: int, preprocessing: Preprocessing, num_classes: int
) -> Iterator[tuple[PublishedMap, NDArray[np.uint8]]]:
    """Maps of a shard with what they cover of their images, squashed.

    The import reports what is damaged, so it is ignored here.
    """
    with suppress(ShardError):
        for sample in spread(index_shard(path).samples, count):
            with suppress(LabelMapError, ImageError):
                source_map = read_map(source, sample.key, num_classes=num_classes)
                if source_map is not None and sample.length <= MAX_IMAGE_BYTES:
                    image = cut_image(decode_image(read_image(path, sample)), preprocessing)
                    yield source_map, squash(image, preprocessing)
