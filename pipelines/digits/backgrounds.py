"""Paints backgrounds of gradients, rectangles and strokes that show no digit, and adds noise.

Shapes: S is the side of the image. Images are (S, S, 3) float32 in 0..255, masks (S, S) bool.
"""

import math

import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Mask = NDArray[np.bool_]


def paint_background(rng: np.random.Generator, size: int) -> Canvas:
    """Paint one background, without noise.

    Args:
        rng: source of every random choice.
        size: side of the image in pixels.

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
        rng: source of every random choice.
        image: (S, S, 3) float32, 0 to 255: the finished scene, digits included. Digits without noise would stand
            out from the background.

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
    fraction = (along - along.min()) / np.ptp(along)
    image: Canvas = start + fraction[..., None] * (end - start)
    return image


def _blend(image: Canvas, mask: Mask, rng: np.random.Generator) -> None:
    """Blend a half-transparent random colour into the masked pixels, in place."""
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
    """A line from border to border; a line that ended inside the image would look like the digit 1."""
    angle = rng.uniform(0, math.pi)
    through_y, through_x = rng.uniform(0.1 * size, 0.9 * size, 2).tolist()
    y, x = _grid(size)
    distance = math.sin(angle) * (x - through_x) - math.cos(angle) * (y - through_y)
    mask: Mask = np.abs(distance) < rng.uniform(0.6, 2.0)
    return mask


def _dash(rng: np.random.Generator, size: int) -> Mask:
    """A short straight line, at most half as long as the smallest digit."""
    angle, half_length = rng.uniform(0, math.pi), rng.uniform(2, 7)
    centre_y, centre_x = rng.uniform(0, size, 2).tolist()
    y, x = _grid(size)
    along = math.cos(angle) * (x - centre_x) + math.sin(angle) * (y - centre_y)
    across = math.sin(angle) * (x - centre_x) - math.cos(angle) * (y - centre_y)
    mask: Mask = (np.abs(along) < half_length) & (np.abs(across) < rng.uniform(0.8, 3.0))
    return mask


def _arc(rng: np.random.Generator, size: int) -> Mask:
    """A short arc: at most a third of a circle, so that it never looks like the digit 0."""
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
    """Pixel coordinates for broadcasting: y as (S, 1) and x as (1, S), float32."""
    line = np.arange(size, dtype=np.float32)
    return line[:, None], line[None, :]
