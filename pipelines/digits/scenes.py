"""Scenes: one to four digits on a cluttered background, one of them "the label", as in ImageNet.

Shapes: S is the side of a scene, 120 pixels.
"""

from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.digits.backgrounds import add_noise, paint_background
from pipelines.digits.pools import POOL_NAMES, DigitPool

SCENE_SIZE = 120
DIGITS_MAX = 4
DIGIT_SIZES = (28, 64)
# Digits are chalk on a dark board: with colours at random a student learns nothing in the demo's few minutes.
CHALK = (190, 255)  # brightness, 0 to 255
TINT = 25  # most levels that a channel differs from it
BOARD = np.float32(0.45)  # what is left of the background's brightness
# Pixels between two digits, so that neither's edge blurs into the other's box.
GAP = 3
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedDigit:
    """One digit of a scene.

    Attributes:
        label: The digit, 0 to 9.
        box: x1, y1, x2, y2 around its ink, normalised to [0, 1] by the whole scene, origin top left.
        source: Its row in scikit-learn's data set, which tells which pool it came from.
    """

    label: int
    box: tuple[float, float, float, float]
    source: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """One picture and all that is known about it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        label: The one label an ImageNet-like data set would give: that of a digit chosen at random.
        digits: Every digit of the scene.
    """

    image: NDArray[np.uint8]
    label: int
    digits: tuple[PlacedDigit, ...]


def draw_scene(seed: int, index: int, pool: DigitPool, *, digits_max: int = DIGITS_MAX) -> Scene:
    """Draw one scene, a pure function of the arguments.

    Args:
        seed: Chooses the data set, 0 or more.
        index: Chooses the scene within it, 0 or more.
        pool: The digits to choose from.
        digits_max: Most digits in the scene, 1 to 4; their number is uniform from 1 to this.

    Returns:
        The scene; its digits lie whole inside the image and do not overlap.

    Raises:
        ValueError: If `digits_max` is not 1 to 4, or `seed` or `index` is negative.
    """
    if not 1 <= digits_max <= DIGITS_MAX:
        raise ValueError(f"digits_max {digits_max}: expected 1 to {DIGITS_MAX}, more do not fit a scene")
    rng = np.random.default_rng([seed, index, POOL_NAMES.index(pool.name)])
    rows = rng.integers(len(pool), size=rng.integers(1, digits_max + 1))
    strokes = [_render_stroke(pool.glyphs[row]) for row in rows]
    boxes = _place(rng, strokes)
    canvas = BOARD * paint_background(rng, SCENE_SIZE)
    for stroke, box in zip(strokes, boxes, strict=True):
        _paint_digit(rng, canvas, stroke, box)
    digits = tuple(
        PlacedDigit(label=int(pool.labels[row]), box=_normalise(box), source=int(pool.sources[row]))
        for row, box in zip(rows, boxes, strict=True)
    )
    image = np.rint(add_noise(rng, canvas)).astype(np.uint8)
    label = digits[rng.integers(len(digits))].label
    return Scene(image=image, label=label, digits=digits)


def _render_stroke(glyph: NDArray[np.uint8]) -> Image.Image:
    """Enlarge (8, 8) ink to a smooth stroke, cropped to it: an 8-bit image of opacity, ink at every edge."""
    padded = np.pad(glyph.astype(np.float32) / 16, 1)
    side = 16 * len(padded)
    large = np.asarray(Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC))
    # A steep edge halfway up the ink's slope: enlarged handwriting would otherwise be a blur.
    opacity = np.clip((large - 0.3) / 0.3, 0, 1)
    image = Image.fromarray(np.rint(255 * opacity).astype(np.uint8))
    return image.crop(image.getbbox())


def _place(rng: np.random.Generator, strokes: list[Image.Image]) -> list[Box]:
    """Draw sizes and positions until no two digits overlap; boxes are x1, y1, x2, y2 in pixels."""
    low, high = DIGIT_SIZES
    for attempt in count():
        # The largest sizes do not fit four times: every failure allows a little less, down to 36 pixels.
        limit = max(high - attempt, low + 8)
        boxes = [_random_box(rng, stroke, int(rng.integers(low, limit + 1))) for stroke in strokes]
        if not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
            return boxes
    raise AssertionError("unreachable: count() does not end")


def _random_box(rng: np.random.Generator, stroke: Image.Image, size: int) -> Box:
    """A box with the stroke's proportions, its longer side `size`, anywhere inside the scene."""
    scale = size / max(stroke.size)
    width, height = (max(round(scale * side), 1) for side in stroke.size)
    x1, y1 = rng.integers(SCENE_SIZE - width + 1), rng.integers(SCENE_SIZE - height + 1)
    return int(x1), int(y1), int(x1) + width, int(y1) + height


def _overlap(a: Box, b: Box) -> bool:
    """Whether two boxes come closer than `GAP` pixels."""
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP


def _paint_digit(rng: np.random.Generator, canvas: NDArray[np.float32], stroke: Image.Image, box: Box) -> None:
    """Paint the stroke into its box in a colour of chalk, in place."""
    x1, y1, x2, y2 = box
    under = canvas[y1:y2, x1:x2]
    tinted = rng.uniform(*CHALK) + rng.uniform(-TINT, TINT, 3)
    colour = np.clip(tinted, 0, 255).astype(np.float32)
    resized = stroke.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR)
    opacity = np.asarray(resized, dtype=np.float32)[..., None] / 255
    under += opacity * (colour - under)


def _normalise(box: Box) -> tuple[float, float, float, float]:
    """Pixels to shares of the scene's side."""
    x1, y1, x2, y2 = (side / SCENE_SIZE for side in box)
    return x1, y1, x2, y2
