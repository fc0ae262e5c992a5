"""The part of an image that its label map covers, and boxes of the image as boxes of the map.

The part is the whole image where the preprocessing is `squash`. Where it is `centre`, it depends on the image's size.
`store/view/templates/pooling.js` has `cutBox`, too.
"""

import math

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from store.errors import LabelMapError
from store.format.schema import SQUASH, Preprocessing
from store.maps.types import WHOLE_IMAGE, Box


def labelled_region(preprocessing: Preprocessing, height: int, width: int) -> Box:
    """The part of an image that its map covers.

    For `centre` as timm evaluates: the shorter side is resized to floor(S / crop_pct), and S x S pixels are cut out.

    Args:
        preprocessing: of the map.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        x1, y1, x2, y2, normalised by the whole image.
    """
    if preprocessing.crop_pct is UNSET:
        return WHOLE_IMAGE
    side, shorter = preprocessing.input_size[0], min(height, width)
    resized = math.floor(side / preprocessing.crop_pct)
    h, w = resized * height // shorter, resized * width // shorter
    top, left = round((h - side) / 2), round((w - side) / 2)
    return left / w, top / h, (left + side) / w, (top + side) / h


def check_box(box: Box) -> None:
    """Raise LabelMapError unless the box is inside the image and has an area."""
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise LabelMapError(f"box {box}: expected 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")


def cut_box(box: Box, region: Box) -> Box | None:
    """The part of a box that is in a region, normalised by the region; None if there is none.

    >>> cut_box((0.0, 0.5, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0))
    (0.0, 0.5, 0.5, 1.0)
    """
    x1, y1, x2, y2 = region
    left, top, right, bottom = max(box[0], x1), max(box[1], y1), min(box[2], x2), min(box[3], y2)
    if left >= right or top >= bottom:
        return None
    return (left - x1) / (x2 - x1), (top - y1) / (y2 - y1), (right - x1) / (x2 - x1), (bottom - y1) / (y2 - y1)


def box_on_map(preprocessing: Preprocessing, box: Box, image_size: tuple[int, int] | None) -> Box:
    """A box of the whole image as a box of its map: its part in the labelled region, normalised by that.

    Args:
        preprocessing: of the map.
        box: x1, y1, x2, y2, normalised by the whole image.
        image_size: height and width in pixels; not needed for the whole image, nor where maps cover all of it.

    Raises:
        LabelMapError: a box without area or outside the image, or of which the map covers no part; or the image's size
            is needed.
    """
    check_box(box)
    if preprocessing.mode == SQUASH or box == WHOLE_IMAGE:
        return box
    if image_size is None:
        raise LabelMapError(f"box {box}: these maps cover the centre of each image, which depends on its size; "
                            "give the image (--shards)")  # fmt: skip
    region = labelled_region(preprocessing, *image_size)
    if (cut := cut_box(box, region)) is None:
        corners = ", ".join(f"{side:.4g}" for side in region)
        raise LabelMapError(f"box {box}: outside the centre of the image that its map covers, {corners}")
    return cut


def cut_image(image_hw3: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The pixels of the labelled region, rounded to whole pixels: a view of the (h, w, 3) image, at least 1 x 1."""
    height, width = image_hw3.shape[:2]
    x1, y1, x2, y2 = labelled_region(preprocessing, height, width)
    top, left = min(round(y1 * height), height - 1), min(round(x1 * width), width - 1)
    bottom, right = max(round(y2 * height), top + 1), max(round(x2 * width), left + 1)
    return image_hw3[top:bottom, left:right]
