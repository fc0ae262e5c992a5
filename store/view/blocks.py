"""An image in a terminal: every character is two pixels, one above the other. Needs the extra `view`."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from store.maps.pooling import Box

UPPER_HALF = "\u2580"


def half_blocks(image: NDArray[np.uint8], lines: int, columns: int, box: Box | None = None) -> Iterator[Text]:
    """Lines of text that show a whole image, squashed to that many characters.

    Args:
        image: (h, w, 3) uint8.
        lines: characters down.
        columns: characters across.
        box: a crop to draw a frame around, normalised by the image.
    """
    from PIL import Image

    pixels = np.array(Image.fromarray(image).resize((columns, 2 * lines), Image.Resampling.BOX))
    if box is not None:
        _frame(pixels, box)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(upper, lower, strict=True):
            line.append(UPPER_HALF, f"{_rgb(above)} on {_rgb(below)}")
        yield line


def _frame(pixels: NDArray[np.uint8], box: Box) -> None:
    """Turn the pixels on the box's edge into their opposite, which shows on any image."""
    height, width = pixels.shape[:2]
    x1, x2 = (min(round(side * width), width - 1) for side in (box[0], box[2]))
    y1, y2 = (min(round(side * height), height - 1) for side in (box[1], box[3]))
    edge = np.zeros((height, width), bool)
    edge[y1 : y2 + 1, [x1, x2]] = True
    edge[[y1, y2], x1 : x2 + 1] = True
    pixels[edge] = np.where(pixels[edge].mean(axis=1, keepdims=True) < 128, 255, 0)


def _rgb(colour: list[int]) -> str:
    return "rgb({},{},{})".format(*colour)
