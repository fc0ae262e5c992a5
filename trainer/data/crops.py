"""Random and central crops of one image, for workers; flips and normalisation of a batch, for the device.

Shapes: B batch, H W pixels (y, x) of an image, S side of a crop.
"""

import math
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from store.errors import ImageError
from store.shards.decode import MAX_PIXELS
from trainer.types import Interpolation

CROP_STREAM = 2  # separates the random numbers of crops from those of order and updates
CROP_TRIES = 10
RESIZING = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class CropRange(TypedDict):
    """The range of random crops' areas and shapes."""

    scale: tuple[float, float]  # least and largest fraction of the image's area
    ratio: tuple[float, float]  # least and largest width / height


IMAGENET_CROPS: CropRange = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A rectangle of whole pixels: columns x1 to x2, rows y1 to y2, ends excluded."""

    x1: int
    y1: int
    x2: int
    y2: int

    def normalised(self, height: int, width: int) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 as fractions of the image's width and height, 0 to 1."""
        return self.x1 / width, self.y1 / height, self.x2 / width, self.y2 / height


def sample_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, independent of the process that reads it."""
    return np.random.default_rng((CROP_STREAM, seed, epoch, row))


def draw_crop(
    rng: np.random.Generator, height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> PixelBox:
    """Draw the box of a random resized crop as torchvision does: ten tries, then a central crop.

    Args:
        rng: source of random numbers.
        height: of the image, pixels.
        width: of the image, pixels.
        scale: least and largest fraction of the image's area.
        ratio: least and largest width / height; its logarithm is uniform.
    """
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return PixelBox(x, y, x + w, y + h)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, max(round(height * aspect), 1)), min(height, max(round(width / aspect), 1))
    x, y = (width - w) // 2, (height - h) // 2
    return PixelBox(x, y, x + w, y + h)


def crop_and_resize(
    image_HW3: NDArray[np.uint8], box: PixelBox, size: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Cut out the box's pixels and resize them with antialiasing: (S, S, 3) uint8."""
    crop_SS3 = torch.empty(size, size, 3, dtype=torch.uint8)
    crop_and_resize_into(crop_SS3.permute(2, 0, 1), image_HW3, box, interpolation)
    return crop_SS3.numpy()


def crop_and_resize_into(
    out_3SS: Tensor, image_HW3: NDArray[np.uint8], box: PixelBox, interpolation: Interpolation
) -> None:
    """As `crop_and_resize`, into a crop's place in a batch of uint8 with channels last in memory."""
    # Cut before resizing, so that pixels outside the box, which the target does not cover, are not blended in.
    crop = image_HW3[box.y1 : box.y2, box.x1 : box.x2]
    crop_13hw = torch.from_numpy(crop if crop.flags.writeable else crop.copy()).permute(2, 0, 1)[None]
    # For uint8 pixels with channels last, torch's resize is three times as fast as Pillow's, and as exact. It is what
    # `interpolate(antialias=True)` calls, which cannot write into a given tensor.
    RESIZING[interpolation](crop_13hw, out_3SS.shape[1:], False, None, None, out=out_3SS[None])


def resize_and_centre(
    image_HW3: NDArray[np.uint8], size: int, crop_pct: float, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """Resize the shorter side to size / crop_pct and cut out the centre, for validation: (S, S, 3) uint8.

    Raises:
        ImageError: a long thin image of more than MAX_PIXELS pixels once resized.
    """
    height, width = image_HW3.shape[:2]
    scale = math.floor(size / crop_pct) / min(height, width)
    w, h = max(round(width * scale), size), max(round(height * scale), size)
    if w * h > MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} pixels, which validation would resize to {w} x {h}")
    resized = np.asarray(Image.fromarray(image_HW3).resize((w, h), RESAMPLING[interpolation]))
    y, x = (h - size) // 2, (w - size) // 2
    return resized[y : y + size, x : x + size]


def flip_images(images_B3SS: Tensor, flips_B: Tensor) -> Tensor:
    """Mirror the chosen images left to right; pooled targets stay the same."""
    return torch.where(flips_B[:, None, None, None], images_B3SS.flip(-1), images_B3SS)


def normalise(images_B3SS: Tensor, mean_3: Tensor, std_3: Tensor) -> Tensor:
    """Normalise uint8 pixels to float32; mean and standard deviation are of pixels scaled to [0, 1]."""
    return (images_B3SS.float() / 255 - mean_3[:, None, None]) / std_3[:, None, None]
