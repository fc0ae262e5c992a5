"""Draws scenes: one to four handwritten digits on a cluttered background, one of them chosen as the scene's label.

As in ImageNet, a scene has one label although it may show several classes. The digits are scikit-learn's 1,797, split
into three disjoint pools: for the teacher, the students' training and their evaluation.

Shapes: S is the side of a scene, 120 pixels.
"""

from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from pipelines.digits.backgrounds import add_noise, paint_background
from store.maps.types import Box

PoolName = Literal["teacher", "train", "val"]
POOL_NAMES: tuple[PoolName, ...] = get_args(PoolName)
CLASS_NAMES = tuple(str(digit) for digit in range(10))
# Of each class's digits 40 % go to the teacher, the next 40 % to train, the rest to val.
CUTS = (0.4, 0.8)
SPLIT_SEED = 20210119

SCENE_SIZE = 120
DIGITS_MAX = 4
DIGIT_SIZES = (28, 64)
# Digits are bright on a dark background; with random colours a student learns nothing in the demo's few minutes.
CHALK = (190, 255)  # brightness, 0 to 255
TINT = 25  # largest difference of a channel from the brightness
BOARD = np.float32(0.45)  # factor on the background's brightness
GAP = 3  # pixels between two digits, so that no edge blurs into another digit's box
PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DigitPool:
    """The digits reserved for one purpose.

    Attributes:
        name: their purpose.
        glyphs: (N, 8, 8) uint8, ink from 0 to 16, read-only.
        labels: (N,) int64, the digit each glyph shows, read-only.
        sources: (N,) int64, each glyph's row in scikit-learn's dataset, ascending, read-only.
    """

    name: PoolName
    glyphs: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of digits in the pool."""
        return len(self.labels)


@cache
def load_pool(name: PoolName) -> DigitPool:
    """Load one pool; the same digits in every process and on every machine.

    Args:
        name: "teacher", "train" or "val".

    Returns:
        The pool; its arrays are shared between callers and therefore read-only.

    Raises:
        ValueError: If there is no such pool.
    """
    if name not in POOL_NAMES:
        raise ValueError(f"digit pool {name!r}: expected one of {', '.join(POOL_NAMES)}")
    glyphs, labels = _load_glyphs()
    sources = _split_rows(labels)[POOL_NAMES.index(name)]
    arrays = (glyphs[sources], labels[sources], sources)
    for array in arrays:
        array.setflags(write=False)
    return DigitPool(name=name, glyphs=arrays[0], labels=arrays[1], sources=arrays[2])


@cache
def _load_glyphs() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read scikit-learn's digits: (1797, 8, 8) uint8 and (1797,) int64."""
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.int64)


def _split_rows(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split the shuffled rows of each class at `CUTS`, so that all pools have the same class proportions."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in POOL_NAMES]
    for digit in range(len(CLASS_NAMES)):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        cuts = [round(cut * len(rows)) for cut in CUTS]
        for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedDigit:
    """One digit of a scene.

    Attributes:
        label: the digit, 0 to 9.
        box: x1, y1, x2, y2 around its ink, normalised to [0, 1] by the whole scene, origin top left.
        source: its row in scikit-learn's dataset, by which its pool is known.
    """

    label: int
    box: Box
    source: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """One image and all digits in it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        label: the single label, as in ImageNet: that of a digit chosen at random.
        digits: every digit of the scene.
    """

    image: NDArray[np.uint8]
    label: int
    digits: tuple[PlacedDigit, ...]


def draw_scene(seed: int, index: int, pool: DigitPool, *, digits_max: int = DIGITS_MAX) -> Scene:
    """Draw one scene, a pure function of the arguments.

    Args:
        seed: chooses the dataset, 0 or more.
        index: chooses the scene within it, 0 or more.
        pool: the digits to choose from.
        digits_max: most digits in the scene, 1 to 4; their number is uniform from 1 to this.

    Returns:
        The scene; its digits are completely inside the image and do not overlap.

    Raises:
        ValueError: If `digits_max` is not 1 to 4, or `seed` or `index` is negative.
    """
    if not 1 <= digits_max <= DIGITS_MAX:
        raise ValueError(f"digits_max {digits_max}: expected 1 to {DIGITS_MAX}, more do not fit a scene")
    rng = np.random.default_rng([seed, index, POOL_NAMES.index(pool.name)])
    rows = rng.integers(len(pool), size=rng.integers(1, digits_max + 1))
    strokes = [_render_stroke(pool.glyphs[row]) for row in rows]
    boxes = _place_digits(rng, strokes)
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
    # Steepen the edges, since enlarged handwriting is blurred.
    opacity = np.clip((large - 0.3) / 0.3, 0, 1)
    image = Image.fromarray(np.rint(255 * opacity).astype(np.uint8))
    return image.crop(image.getbbox())


def _place_digits(rng: np.random.Generator, strokes: list[Image.Image]) -> list[PixelBox]:
    """Draw sizes and positions until no two digits overlap; boxes are x1, y1, x2, y2 in pixels."""
    low, high = DIGIT_SIZES
    for attempt in count():
        # The largest sizes do not fit four times: every failure allows a little less, down to 36 pixels.
        limit = max(high - attempt, low + 8)
        boxes = [_random_box(rng, stroke, int(rng.integers(low, limit + 1))) for stroke in strokes]
        if not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
            return boxes
    raise AssertionError("unreachable: count() does not end")


def _random_box(rng: np.random.Generator, stroke: Image.Image, size: int) -> PixelBox:
    """A box with the stroke's proportions, its longer side `size`, anywhere inside the scene."""
    scale = size / max(stroke.size)
    width, height = (max(round(scale * side), 1) for side in stroke.size)
    x1, y1 = rng.integers(SCENE_SIZE - width + 1), rng.integers(SCENE_SIZE - height + 1)
    return int(x1), int(y1), int(x1) + width, int(y1) + height


def _overlap(a: PixelBox, b: PixelBox) -> bool:
    """Whether two boxes come closer than `GAP` pixels."""
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP


def _paint_digit(rng: np.random.Generator, canvas: NDArray[np.float32], stroke: Image.Image, box: PixelBox) -> None:
    """Paint the stroke into its box in a bright colour, in place."""
    x1, y1, x2, y2 = box
    under = canvas[y1:y2, x1:x2]
    tinted = rng.uniform(*CHALK) + rng.uniform(-TINT, TINT, 3)
    colour = np.clip(tinted, 0, 255).astype(np.float32)
    resized = stroke.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR)
    opacity = np.asarray(resized, dtype=np.float32)[..., None] / 255
    under += opacity * (colour - under)


def _normalise(box: PixelBox) -> Box:
    """Pixels to fractions of the scene's side."""
    x1, y1, x2, y2 = (side / SCENE_SIZE for side in box)
    return x1, y1, x2, y2
