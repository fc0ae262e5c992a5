"""CutMix and mixup of a batch with itself: drawn once per batch, applied to images and soft targets.

Sources: CutMix (ICCV 2019), one box per batch; mixup (ICLR 2018). Pure: any device, no synchronisation.

Shapes: B batch, C classes, H W pixels (y, x).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mix:
    """The mixing of one batch."""

    kind: Literal["cutmix", "mixup"]
    lam: float  # weight of an image's own target; with CutMix exactly the fraction of its own pixels
    partners: Tensor  # (B,) int64 on the CPU, a permutation: the image that each one is mixed with
    box: tuple[int, int, int, int]  # x1, y1, x2, y2 of the partner's pixels, ends excluded; the whole image with mixup


def draw_mix(
    rng: np.random.Generator,
    *,
    cutmix_prob: float,
    cutmix_alpha: float,
    mixup_prob: float,
    mixup_alpha: float,
    batch: int,
    crops_per_image: int = 1,
    height: int,
    width: int,
) -> Mix | None:
    """Draw the mixing of one batch; None for a batch that stays unmixed.

    Args:
        rng: source of random numbers.
        cutmix_prob: fraction of the batches that CutMix mixes.
        cutmix_alpha: of the Beta distribution of the area that is kept, before the box is clipped at the borders.
        mixup_prob: fraction of the batches that mixup mixes; at most 1 together with `cutmix_prob`.
        mixup_alpha: of the Beta distribution of the weight.
        batch: number of crops.
        crops_per_image: adjacent crops that show the same image; they are not mixed with one another.
        height: of each crop, pixels.
        width: of each crop, pixels.
    """
    choice = rng.random()
    if choice >= cutmix_prob + mixup_prob:
        return None
    partners = torch.from_numpy(_draw_partners(rng, batch, crops_per_image))
    if choice >= cutmix_prob:
        lam = float(rng.beta(mixup_alpha, mixup_alpha))
        return Mix(kind="mixup", lam=lam, partners=partners, box=(0, 0, width, height))
    box = draw_box(rng, float(rng.beta(cutmix_alpha, cutmix_alpha)), height, width)
    # The box is clipped at the borders and has whole pixels: take the weight from the pasted area.
    lam = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width)
    return Mix(kind="cutmix", lam=lam, partners=partners, box=box)


def _draw_partners(rng: np.random.Generator, batch: int, crops_per_image: int) -> NDArray[np.int64]:
    """(B,) int64, a permutation; with several crops of an image none that sends a crop to its own image."""
    if crops_per_image == 1:
        return rng.permutation(batch)
    partners = np.arange(batch).reshape(-1, crops_per_image)
    for crop in range(crops_per_image):
        images = rng.permutation(len(partners))
        partners[images, crop] = partners[np.roll(images, 1), crop]  # each with the next one of a random ring
    return partners.reshape(-1)


def draw_box(rng: np.random.Generator, kept: float, height: int, width: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of a box with the image's aspect ratio and a uniform centre, clipped at the borders.

    Args:
        rng: source of random numbers.
        kept: fraction of the image's area outside the unclipped box.
        height: of the image, pixels.
        width: of the image, pixels.
    """
    side = math.sqrt(1 - kept)
    h, w = round(height * side), round(width * side)
    y1, x1 = int(rng.integers(height)) - h // 2, int(rng.integers(width)) - w // 2
    return max(x1, 0), max(y1, 0), min(x1 + w, width), min(y1 + h, height)


def mix_images(images_B3HW: Tensor, mix: Mix) -> Tensor:
    """Mix images of uint8 or floating dtype: (B, 3, H, W) of the same dtype. The input is not changed."""
    # Asynchronous though the memory is pageable: CUDA stages such small copies before the call returns.
    partners_B = mix.partners.to(images_B3HW.device, non_blocking=True)
    if mix.kind == "mixup":
        mixed_B3HW = torch.lerp(images_B3HW[partners_B].float(), images_B3HW.float(), mix.lam)
        return (mixed_B3HW if images_B3HW.is_floating_point() else mixed_B3HW.round()).to(images_B3HW.dtype)
    x1, y1, x2, y2 = mix.box
    mixed_B3HW = images_B3HW.clone()
    mixed_B3HW[:, :, y1:y2, x1:x2] = images_B3HW[:, :, y1:y2, x1:x2][partners_B]
    return mixed_B3HW


def mix_targets(targets_BC: Tensor, mix: Mix) -> Tensor:
    """Mix (B, C) soft targets like their images; rows still sum to 1."""
    partners_B = mix.partners.to(targets_BC.device, non_blocking=True)
    return torch.lerp(targets_BC[partners_B], targets_BC, mix.lam)
