from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.augment.mixing import Mix, draw_box, draw_mix, mix_images, mix_targets

DTYPES = [torch.uint8, torch.float32]


def draw(seed: int, **changes: Any) -> Mix | None:
    values: dict[str, Any] = {
        "cutmix_prob": 1.0,
        "cutmix_alpha": 1.0,
        "mixup_prob": 0.0,
        "mixup_alpha": 0.2,
        "batch": 6,
        "crops_per_image": 1,
        "height": 20,
        "width": 20,
    }
    return draw_mix(np.random.default_rng(seed), **(values | changes))


def sure(seed: int, **changes: Any) -> Mix:
    mix = draw(seed, **changes)
    assert mix is not None
    return mix


def mixup(seed: int, **changes: Any) -> Mix:
    return sure(seed, cutmix_prob=0.0, mixup_prob=1.0, **changes)


def labelled_images(batch: int, height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Every pixel of image i is i."""
    return torch.arange(batch, dtype=dtype)[:, None, None, None].repeat(1, 3, height, width)


def soft_targets(batch: int, classes: int = 7) -> Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(0)).softmax(1)


sides = st.integers(1, 30)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), sides, sides, st.sampled_from(DTYPES), st.floats(0.1, 5))
def test_cutmix_takes_every_pixel_from_one_of_two_partners_and_weighs_them_by_their_number(
    seed: int, batch: int, height: int, width: int, dtype: torch.dtype, alpha: float
) -> None:
    mix = sure(seed, batch=batch, height=height, width=width, cutmix_alpha=alpha)
    assert mix.partners.sort().values.tolist() == list(range(batch))
    mixed = mix_images(labelled_images(batch, height, width, dtype), mix)
    assert mixed.dtype == dtype
    own, theirs = torch.arange(batch)[:, None, None, None], mix.partners[:, None, None, None]
    assert ((mixed == own) | (mixed == theirs)).all()
    others = mix.partners != torch.arange(batch)
    shares = (mixed == own)[others].float().mean((1, 2, 3))
    torch.testing.assert_close(shares, torch.full_like(shares, mix.lam))
    targets = mix_targets(torch.eye(batch), mix)
    torch.testing.assert_close(targets.diagonal()[others], shares)


def test_cutmix_pastes_the_same_box_of_the_partner() -> None:
    images, away_from_the_corner = torch.rand(6, 3, 20, 30), 0
    for seed in range(40):
        mix = sure(seed, width=30)
        x1, y1, x2, y2 = mix.box
        away_from_the_corner += min(x1, y1) > 0
        inside = torch.zeros(20, 30, dtype=torch.bool)
        inside[y1:y2, x1:x2] = True
        assert torch.equal(mix_images(images, mix), torch.where(inside, images[mix.partners], images))
    assert away_from_the_corner > 2


def test_cutmix_boxes_are_cut_off_at_the_borders_and_then_weigh_less() -> None:
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        x1, y1, x2, y2 = draw_box(rng, 0.75, 40, 80)
        assert 0 <= x1 <= x2 <= 80
        assert 0 <= y1 <= y2 <= 40
        areas.append((x2 - x1) * (y2 - y1))
    assert max(areas) == 40 * 80 / 4
    assert min(areas) < 40 * 80 / 8


def test_mean_area_that_cutmix_keeps_follows_from_its_distribution_and_the_borders() -> None:
    """For a side s around a uniform centre, 1 - s/4 of it lies within on average; s squared is uniform for alpha 1."""
    lams = [sure(seed, height=100, width=100).lam for seed in range(2000)]
    side = np.sqrt(np.random.default_rng(0).random(100_000))
    expected = 1 - np.mean((side * (1 - side / 4)) ** 2)
    assert np.mean(lams) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixup_weighs_images_as_it_weighs_targets(dtype: torch.dtype) -> None:
    images = (torch.rand(6, 3, 5, 4) * 255).to(dtype)
    mix = mixup(1, mixup_alpha=1.0)
    assert 0.05 < mix.lam < 0.95
    expected = images.float() * mix.lam + images[mix.partners].float() * (1 - mix.lam)
    mixed = mix_images(images, mix)
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), expected, rtol=0, atol=0.501 if dtype == torch.uint8 else 1e-4)
    targets = soft_targets(6)
    expected = targets * mix.lam + targets[mix.partners] * (1 - mix.lam)
    torch.testing.assert_close(mix_targets(targets, mix), expected)


@pytest.mark.parametrize("kind", [sure, mixup])
def test_mixed_targets_sum_to_one_and_the_inputs_stay(kind: Any) -> None:
    images, targets = torch.rand(6, 3, 20, 20), soft_targets(6)
    images_before, targets_before = images.clone(), targets.clone()
    mix = kind(2)
    mix_images(images, mix)
    torch.testing.assert_close(mix_targets(targets, mix).sum(1), torch.ones(6))
    assert torch.equal(images, images_before)
    assert torch.equal(targets, targets_before)


@pytest.mark.parametrize("kind", [sure, mixup])
def test_a_batch_of_one_is_mixed_with_itself_alone(kind: Any) -> None:
    images, targets, mix = torch.rand(1, 3, 20, 20), soft_targets(1), kind(0, batch=1)
    torch.testing.assert_close(mix_images(images, mix), images)
    torch.testing.assert_close(mix_targets(targets, mix), targets)


def test_the_same_seed_draws_the_same_mix() -> None:
    for kind in (sure, mixup):
        first, second = kind(5), kind(5)
        assert (first.kind, first.lam, first.box) == (second.kind, second.lam, second.box)
        assert torch.equal(first.partners, second.partners)
        assert kind(6).lam != first.lam


def test_batches_are_mixed_as_often_as_the_settings_say() -> None:
    rng = np.random.default_rng(0)
    values = {"cutmix_alpha": 1.0, "mixup_alpha": 1.0, "batch": 2, "crops_per_image": 1, "height": 8, "width": 8}
    mixes = [draw_mix(rng, cutmix_prob=0.5, mixup_prob=0.3, **values) for _ in range(3000)]  # type: ignore[arg-type]
    kinds = [None if mix is None else mix.kind for mix in mixes]
    for kind, share in (("cutmix", 0.5), ("mixup", 0.3), (None, 0.2)):
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.03)  # type: ignore[arg-type]


def test_nothing_is_mixed_where_both_shares_are_zero() -> None:
    assert all(draw(seed, cutmix_prob=0.0) is None for seed in range(50))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [sure, mixup])
def test_mixing_on_the_gpu_is_mixing_on_the_cpu_and_never_waits(cuda: torch.device, kind: Any) -> None:
    images, targets, mix = torch.rand(6, 3, 20, 20), soft_targets(6), kind(0)
    there, targets_there = images.to(cuda), targets.to(cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed, mixed_targets = mix_images(there, mix), mix_targets(targets_there, mix)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(mixed.cpu(), mix_images(images, mix))
    torch.testing.assert_close(mixed_targets.cpu(), mix_targets(targets, mix))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(2, 4))
def test_crops_of_one_image_are_not_mixed_with_one_another(seed: int, images: int, crops: int) -> None:
    for mix in (sure(seed, batch=images * crops, crops_per_image=crops), mixup(seed, batch=8, crops_per_image=2)):
        partners, own = mix.partners.numpy(), np.arange(len(mix.partners))
        each = crops if mix.kind == "cutmix" else 2
        assert sorted(partners) == own.tolist()
        assert (partners // each != own // each).all()


def test_the_crops_of_an_image_have_partners_of_their_own() -> None:
    partners = sure(0, batch=64, crops_per_image=4).partners.numpy().reshape(16, 4) // 4
    assert sum(len(set(of_image)) > 1 for of_image in partners.tolist()) > 12
