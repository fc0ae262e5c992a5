import numpy as np
import torch

from tests.builders.training import small_settings
from trainer.augment.augment import Augment
from trainer.data.crops import normalise

IMAGES = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.eye(6)
NO_FLIPS = torch.zeros(6, dtype=torch.bool)
CPU = torch.device("cpu")


def test_without_augmentation_images_are_normalised_and_targets_as_they_were() -> None:
    settings = small_settings()
    images, targets = Augment(settings, CPU)(
        IMAGES, NO_FLIPS, TARGETS, rng=np.random.default_rng(0), mixes=True
    )  # fmt: skip
    mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
    torch.testing.assert_close(images, normalise(IMAGES, mean, std))
    assert torch.equal(targets, TARGETS)


def test_targets_are_mixed_as_their_images_are() -> None:
    settings = small_settings(cutmix_prob=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    flat = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 8, 8)
    images, targets = Augment(settings, CPU)(flat, NO_FLIPS, TARGETS, rng=np.random.default_rng(3), mixes=True)
    shares = torch.stack([((images[:, 0] * 255).round() == value).float().mean((1, 2)) for value in range(6)], dim=1)
    torch.testing.assert_close(targets, shares)
    assert not torch.equal(targets, TARGETS)
    _, unmixed = Augment(settings, CPU)(flat, NO_FLIPS, TARGETS, rng=np.random.default_rng(3), mixes=False)
    assert torch.equal(unmixed, TARGETS)


def test_colours_change_before_normalisation_and_within_its_range() -> None:
    settings = small_settings(colour_jitter=0.4)
    torch.manual_seed(0)
    images, _ = Augment(settings, CPU)(IMAGES, NO_FLIPS, TARGETS, rng=np.random.default_rng(0), mixes=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
    pixels = images * std + mean
    assert -1e-6 <= pixels.min() < pixels.max() <= 1 + 1e-6
    assert (pixels - IMAGES / 255).abs().max() > 0.1
