"""A random crop of torchvision's `transforms.v2` that returns its box.

Shapes: S side of a crop, H W pixels (y, x) of an image.
"""

from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import get_size

Picture = TypeVar("Picture", Tensor, Image.Image)


class CropWithBox(v2.RandomResizedCrop):  # type: ignore[misc]
    """`RandomResizedCrop` that returns the crop together with its box; the arguments are the same.

    In a `v2.Compose` it comes before everything else that moves pixels. What follows changes the crop, passes the box
    on, and may mirror the crop: a pooled target is the same then.

    Shapes:
        image: a tensor or `tv_tensors.Image` (..., 3, H, W), or a PIL image. Output: the crop, of the same type, and
        its box (4,) float32: x1, y1, x2, y2, normalised by the image's width and height.

    >>> crop, box = CropWithBox(8, scale=(1, 1), ratio=(2, 2))(torch.zeros(3, 10, 20, dtype=torch.uint8))
    >>> crop.shape, box
    (torch.Size([3, 8, 8]), tensor([0., 0., 1., 1.]))
    """

    def forward(self, image: Picture) -> tuple[Picture, Tensor]:
        """Crop one image."""
        place = self.make_params([image])
        height, width = get_size(image)
        x1, y1 = place["left"] / width, place["top"] / height
        x2, y2 = (place["left"] + place["width"]) / width, (place["top"] + place["height"]) / height
        return self.transform(image, place), torch.tensor((x1, y1, x2, y2), dtype=torch.float32)
