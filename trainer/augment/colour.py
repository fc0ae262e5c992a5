"""Colour jitter and PCA lighting of a batch, on its device.

Sources: torchvision's ColorJitter; AlexNet (NeurIPS 2012) for the lighting. Factors are drawn for each image from
torch's generator of the images' device. Pure: any device, no synchronisation.

Shapes: B batch, S side of an image.
"""

import numpy as np
import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue in a greyscale image, as in torchvision
# Principal axes of ImageNet's colours, one per column, as published in Torch's ResNet recipe.
AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
AXIS_LENGTHS = (0.2175, 0.0188, 0.0045)
LIGHTING_33 = torch.tensor(AXES) * torch.tensor(AXIS_LENGTHS)  # effect of one unit of noise along each axis on r, g, b


def jitter_colours(images_B3SS: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation, in an order drawn for the batch, as torchvision's ColorJitter does.

    Args:
        images_B3SS: (B, 3, S, S) floating, in [0, 1].
        strength: each image's factors are uniform in 1 - strength to 1 + strength; 0 to 1.
        rng: source of the order.

    Returns:
        (B, 3, S, S) in [0, 1].
    """
    if strength == 0:
        return images_B3SS
    changes = (change_brightness, change_contrast, change_saturation)
    factors_3B = torch.empty(3, len(images_B3SS), device=images_B3SS.device).uniform_(1 - strength, 1 + strength)
    for i in rng.permutation(3):
        images_B3SS = changes[i](images_B3SS, factors_3B[i])
    return images_B3SS


def add_lighting(images_B3SS: Tensor, deviation: float) -> Tensor:
    """Add one random colour to all pixels of each image, as AlexNet's recipe does; the result may leave [0, 1].

    Args:
        images_B3SS: (B, 3, S, S) floating, in [0, 1].
        deviation: standard deviation of the noise along each principal axis of ImageNet's colours; 0.1 in the recipes.

    Returns:
        (B, 3, S, S) floating.
    """
    if deviation == 0:
        return images_B3SS
    noise_B3 = torch.randn(len(images_B3SS), 3, device=images_B3SS.device) * deviation
    colour_B3 = (noise_B3[:, None] * LIGHTING_33.to(images_B3SS.device, non_blocking=True)).sum(2)
    return images_B3SS + colour_B3[:, :, None, None]


def change_brightness(images_B3SS: Tensor, factors_B: Tensor) -> Tensor:
    """Multiply each image by its factor and clamp to [0, 1]."""
    return (images_B3SS * factors_B[:, None, None, None]).clamp(0, 1)


def change_contrast(images_B3SS: Tensor, factors_B: Tensor) -> Tensor:
    """Blend each image with the mean of its greyscale: factor 0 gives the mean, 1 the image, more extrapolates."""
    return _blend(_grey(images_B3SS.mean((2, 3), keepdim=True)), images_B3SS, factors_B)


def change_saturation(images_B3SS: Tensor, factors_B: Tensor) -> Tensor:
    """Blend each image with its greyscale: factor 0 gives the greyscale, 1 the image, more extrapolates."""
    return _blend(_grey(images_B3SS), images_B3SS, factors_B)


def _grey(images_B3SS: Tensor) -> Tensor:
    """Greyscale images: (B, 1, S, S)."""
    red_BSS, green_BSS, blue_BSS = images_B3SS.unbind(1)
    return (red_BSS * GREY[0] + green_BSS * GREY[1] + blue_BSS * GREY[2])[:, None]


def _blend(others: Tensor, images_B3SS: Tensor, factors_B: Tensor) -> Tensor:
    return torch.lerp(others, images_B3SS, factors_B[:, None, None, None]).clamp(0, 1)
