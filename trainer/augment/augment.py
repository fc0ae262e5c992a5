"""Augments a batch on its device: flips, colours, normalisation, CutMix and mixup.

Shapes: B batch of this rank, C classes, S side of an image.
"""

import numpy as np
import torch
from torch import Tensor

from trainer.augment.colour import add_lighting, jitter_colours
from trainer.augment.mixing import draw_mix, mix_images, mix_targets
from trainer.data.crops import flip_images
from trainer.settings import TrainSettings


class Augment:
    """The augmentation of training batches by the settings.

    Args:
        settings: of the run.
        device: of the batches.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self.settings = settings
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (settings.mean, settings.std)
        )

    def __call__(
        self, images_B3SS: Tensor, flips_B: Tensor, targets_BC: Tensor, *, rng: np.random.Generator, mixes: bool
    ) -> tuple[Tensor, Tensor]:
        """Augment one batch and its targets.

        Args:
            images_B3SS: (B, 3, S, S) uint8 crops.
            flips_B: (B,) bool, the crops to mirror.
            targets_BC: (B, C) float32, of the crops.
            rng: source of the numbers drawn once for the batch; those of each image come from torch's generator.
            mixes: whether CutMix and mixup are on.

        Returns:
            (B, 3, S, S) float32 normalised images and (B, C) float32 targets.
        """
        settings = self.settings
        images = flip_images(images_B3SS, flips_B).float() / 255
        images = add_lighting(jitter_colours(images, settings.colour_jitter, rng), settings.lighting)
        images = (images - self._mean) / self._std
        mix = draw_mix(
            rng,
            cutmix_prob=settings.cutmix_prob if mixes else 0,
            cutmix_alpha=settings.cutmix_alpha,
            mixup_prob=settings.mixup_prob if mixes else 0,
            mixup_alpha=settings.mixup_alpha,
            batch=len(images),
            crops_per_image=settings.crops_per_image,
            height=images.shape[2],
            width=images.shape[3],
        )
        return (images, targets_BC) if mix is None else (mix_images(images, mix), mix_targets(targets_BC, mix))
