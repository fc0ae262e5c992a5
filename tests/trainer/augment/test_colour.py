from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from trainer.augment.colour import (
    AXES,
    AXIS_LENGTHS,
    add_lighting,
    change_brightness,
    change_contrast,
    change_saturation,
    jitter_colours,
)

Change = Callable[[Tensor, Tensor], Tensor]
PAIRS = [
    (change_brightness, vision.adjust_brightness),
    (change_contrast, vision.adjust_contrast),
    (change_saturation, vision.adjust_saturation),
]


def random_images(batch: int = 5) -> Tensor:
    return torch.rand(batch, 3, 9, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_each_change_equals_torchvisions_on_each_image(ours: Change, theirs: Callable[[Tensor, float], Tensor]) -> None:
    images, factors = random_images(), torch.tensor([0.0, 0.4, 1.0, 1.3, 2.0])
    expected = torch.stack([theirs(image, float(factor)) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, rtol=0, atol=1e-5)
    assert expected.max() == 1  # clamped somewhere


def test_jitter_equals_torchvisions_changes_one_after_the_other_in_the_drawn_order() -> None:
    images, orders = random_images(), set()
    for seed in range(12):
        torch.manual_seed(seed)
        ours = jitter_colours(images, 0.4, np.random.default_rng(seed))
        torch.manual_seed(seed)
        factors = torch.empty(3, 5).uniform_(0.6, 1.4)
        order = [int(i) for i in np.random.default_rng(seed).permutation(3)]
        orders.add(tuple(order))
        for i in range(5):
            expected = images[i]
            for change in order:
                expected = PAIRS[change][1](expected, float(factors[change, i]))
            torch.testing.assert_close(ours[i], expected, rtol=0, atol=1e-5)
    assert len(orders) > 3


def test_factors_lie_within_the_strength_and_differ_between_images() -> None:
    grey = torch.full((2000, 3, 1, 1), 0.5)  # contrast and saturation leave one grey pixel as it is
    torch.manual_seed(0)
    factors = jitter_colours(grey, 0.3, np.random.default_rng(0))[:, 0, 0, 0] / 0.5
    assert 0.7 - 1e-3 <= factors.min() < 0.71
    assert 1.29 < factors.max() <= 1.3 + 1e-3
    assert factors.mean() == pytest.approx(1, abs=0.02)


def test_strength_and_deviation_zero_change_nothing() -> None:
    images = random_images()
    assert torch.equal(jitter_colours(images, 0.0, np.random.default_rng(0)), images)
    assert torch.equal(add_lighting(images, 0.0), images)


def test_neither_changes_its_input_in_place() -> None:
    images = random_images()
    before = images.clone()
    jitter_colours(images, 0.4, np.random.default_rng(0))
    add_lighting(images, 0.1)
    assert torch.equal(images, before)


def test_colours_of_an_image_do_not_depend_on_the_other_images() -> None:
    images = random_images()
    others = images.clone()
    others[1:] = 0
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: jitter_colours(x, 0.4, np.random.default_rng(1)),
        lambda x: add_lighting(x, 0.1),
    ]
    for change in changes:
        torch.manual_seed(1)
        first = change(images)
        torch.manual_seed(1)
        assert torch.equal(change(others)[0], first[0])


def test_the_principal_axes_are_orthonormal() -> None:
    axes = np.array(AXES)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-3)


def test_lighting_adds_one_colour_per_image_whose_spread_is_along_the_axes() -> None:
    torch.manual_seed(0)
    added = add_lighting(torch.zeros(20_000, 3, 2, 2), 0.1)
    assert torch.equal(added, added[:, :, :1, :1].expand_as(added))
    colours = added[:, :, 0, 0].numpy()
    along = colours @ np.array(AXES)
    np.testing.assert_allclose(along.std(0), 0.1 * np.array(AXIS_LENGTHS), rtol=0.05)
    np.testing.assert_allclose(along.mean(0), 0, atol=1e-3)


def test_lighting_adds_to_the_pixels() -> None:
    images = random_images()
    torch.manual_seed(4)
    added = add_lighting(torch.zeros_like(images), 0.1)
    torch.manual_seed(4)
    torch.testing.assert_close(add_lighting(images, 0.1), images + added)


@pytest.mark.gpu
def test_colours_on_the_gpu_change_without_waiting(cuda: torch.device) -> None:
    images, rng = random_images().to(cuda), np.random.default_rng(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        changed = add_lighting(jitter_colours(images, 0.4, rng), 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert changed.device.type == "cuda"
    assert not torch.equal(changed, images)
    factors = torch.tensor([0.4, 0.6, 1.0, 1.3, 1.6])
    for ours, _ in PAIRS:
        torch.testing.assert_close(ours(images, factors.to(cuda)).cpu(), ours(images.cpu(), factors))
