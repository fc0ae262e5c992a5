"""Scenes: one to four digits on a cluttered background, one of them "the label", as in ImageNet.

Shapes: S is the side of a scene, 120 pixels.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

# Cluttered backgrounds: gradients, rectangles and strokes, with nothing that reads as a digit, and noise.
#
# Shapes: S is the side of the image. Images here are float32 (S, S, 3) in 0..255, masks bool (S, S).


Canvas = NDArray[np.float32]
Mask = NDArray[np.bool_]


def paint_background(rng: np.random.Generator, size: int) -> Canvas:
    """Paint one background, still without noise.

    Args:
        rng: Where every choice comes from.
        size: Side of the image in pixels.

    Returns:
        (size, size, 3) float32, 0 to 255.
    """
    image = _gradient(rng, size)
    for _ in range(rng.integers(0, 4)):
        _blend(image, _rectangle(rng, size), rng)
    for _ in range(rng.integers(0, 3)):
        _blend(image, _long_stroke(rng, size), rng)
    for _ in range(rng.integers(4, 13)):
        fragment = _arc if rng.random() < 0.5 else _dash
        _blend(image, fragment(rng, size), rng)
    return image


def add_noise(rng: np.random.Generator, image: Canvas) -> Canvas:
    """Add noise of one random strength to every pixel.

    Args:
        rng: Where every choice comes from.
        image: (S, S, 3) float32, 0 to 255, the finished scene: noise on everything, or flatness would
            betray what was painted last.

    Returns:
        (S, S, 3) float32, 0 to 255.
    """
    strength = rng.uniform(2, 12)
    return np.clip(image + strength * rng.standard_normal(image.shape, dtype=np.float32), 0, 255)


def _gradient(rng: np.random.Generator, size: int) -> Canvas:
    """Blend linearly, in a random direction, between two colours at most 60 levels apart."""
    start = rng.uniform(0, 255, 3).astype(np.float32)
    end = np.clip(start + rng.uniform(-60, 60, 3).astype(np.float32), 0, 255)
    angle = rng.uniform(0, 2 * math.pi)
    y, x = _grid(size)
    along = (math.cos(angle) * x + math.sin(angle) * y) / size
    share = (along - along.min()) / np.ptp(along)
    image: Canvas = start + share[..., None] * (end - start)
    return image


def _blend(image: Canvas, mask: Mask, rng: np.random.Generator) -> None:
    """Lay a half-transparent random colour over the masked pixels, in place."""
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    opacity = np.float32(rng.uniform(0.2, 0.6))
    image[mask] += opacity * (colour - image[mask])


def _rectangle(rng: np.random.Generator, size: int) -> Mask:
    """A filled, upright rectangle, which may be cut off by the border."""
    height, width = rng.integers(size // 8, size // 2, 2)
    top, left = rng.integers(-10, size - 10, 2)
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[max(top, 0) : top + height, max(left, 0) : left + width] = True
    return mask


def _long_stroke(rng: np.random.Generator, size: int) -> Mask:
    """A line from border to border: one that ended inside the image would read as a one."""
    angle = rng.uniform(0, math.pi)
    through_y, through_x = rng.uniform(0.1 * size, 0.9 * size, 2).tolist()
    y, x = _grid(size)
    distance = math.sin(angle) * (x - through_x) - math.cos(angle) * (y - through_y)
    mask: Mask = np.abs(distance) < rng.uniform(0.6, 2.0)
    return mask


def _dash(rng: np.random.Generator, size: int) -> Mask:
    """A straight fragment of a stroke, at most half as long as the smallest digit."""
    angle, half_length = rng.uniform(0, math.pi), rng.uniform(2, 7)
    centre_y, centre_x = rng.uniform(0, size, 2).tolist()
    y, x = _grid(size)
    along = math.cos(angle) * (x - centre_x) + math.sin(angle) * (y - centre_y)
    across = math.sin(angle) * (x - centre_x) - math.cos(angle) * (y - centre_y)
    mask: Mask = (np.abs(along) < half_length) & (np.abs(across) < rng.uniform(0.8, 3.0))
    return mask


def _arc(rng: np.random.Generator, size: int) -> Mask:
    """A bent fragment of a stroke: at most a third of a circle, so that it never reads as a zero."""
    radius, towards = rng.uniform(4, 14), rng.uniform(0, 2 * math.pi)
    centre_y, centre_x = rng.uniform(0, size, 2).tolist()
    y, x = _grid(size)
    down, right = y - centre_y, x - centre_x
    distance = np.sqrt(down * down + right * right)
    along = math.sin(towards) * down + math.cos(towards) * right
    near_circle: Mask = np.abs(distance - radius) < rng.uniform(0.8, 2.5)
    towards_middle: Mask = along > math.cos(rng.uniform(0.4, 1.0)) * distance
    return near_circle & towards_middle


def _grid(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The pixels' y as (S, 1) and x as (1, S), float32, to be broadcast against each other."""
    line = np.arange(size, dtype=np.float32)
    return line[:, None], line[None, :]


# Three disjoint pools of real handwritten digits: for the teacher, the student and the evaluation.


PoolName = Literal["teacher", "train", "val"]
POOL_NAMES: tuple[PoolName, ...] = get_args(PoolName)
CLASS_NAMES = tuple(str(digit) for digit in range(10))
# Of every class's digits: the first 40 % go to the teacher, the next 40 % to train, the rest to val.
CUTS = (0.4, 0.8)
SPLIT_SEED = 20210119


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DigitPool:
    """The digits one purpose may use.

    Attributes:
        name: What the digits are for.
        glyphs: (N, 8, 8) uint8, ink from 0 to 16, read-only.
        labels: (N,) int64, the digit each glyph shows, read-only.
        sources: (N,) int64, each glyph's row in scikit-learn's data set, ascending, read-only.
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
    """Cut the shuffled rows of every class at `CUTS`, so that each pool has the classes' own proportions."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in POOL_NAMES]
    for digit in range(len(CLASS_NAMES)):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        cuts = [round(cut * len(rows)) for cut in CUTS]
        for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]


SCENE_SIZE = 120
DIGITS_MAX = 4
DIGIT_SIZES = (28, 64)
# Digits are chalk on a dark board: with colours at random a student learns nothing in the demo's few minutes.
CHALK = (190, 255)  # brightness, 0 to 255
TINT = 25  # most levels that a channel differs from it
BOARD = np.float32(0.45)  # what is left of the background's brightness
# Pixels between two digits, so that neither's edge blurs into the other's box.
GAP = 3
PixelBox = tuple[int, int, int, int]


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


def _place(rng: np.random.Generator, strokes: list[Image.Image]) -> list[PixelBox]:
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
    """Paint the stroke into its box in a colour of chalk, in place."""
    x1, y1, x2, y2 = box
    under = canvas[y1:y2, x1:x2]
    tinted = rng.uniform(*CHALK) + rng.uniform(-TINT, TINT, 3)
    colour = np.clip(tinted, 0, 255).astype(np.float32)
    resized = stroke.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR)
    opacity = np.asarray(resized, dtype=np.float32)[..., None] / 255
    under += opacity * (colour - under)


def _normalise(box: PixelBox) -> tuple[float, float, float, float]:
    """Pixels to shares of the scene's side."""
    x1, y1, x2, y2 = (side / SCENE_SIZE for side in box)
    return x1, y1, x2, y2
