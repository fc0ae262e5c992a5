import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.crops import (
    PixelBox,
    crop_and_resize,
    crop_and_resize_into,
    draw_crop,
    flip_images,
    normalise,
    resize_and_centre,
    sample_rng,
)
from trainer.types import Interpolation

IMAGENET = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: red the column, green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 500), st.integers(1, 500))
def test_crops_lie_within_the_image_and_have_an_area(row: int, height: int, width: int) -> None:
    box = draw_crop(sample_rng(0, 0, row), height, width, **IMAGENET)
    assert 0 <= box.x1 < box.x2 <= width
    assert 0 <= box.y1 < box.y2 <= height


def test_crops_are_as_large_and_as_wide_as_torchvisions() -> None:
    """The same distributions, by their quartiles; torchvision draws from another generator."""
    from torchvision.transforms import RandomResizedCrop

    ours = [draw_crop(sample_rng(0, 0, row), 375, 500, **IMAGENET) for row in range(4000)]
    torch.manual_seed(0)
    image = torch.zeros(3, 375, 500)
    theirs = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    our_sizes = np.array([(box.y1, box.x1, box.y2 - box.y1, box.x2 - box.x1) for box in ours])
    quartiles = [np.quantile(values, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0) for values in (our_sizes, np.array(theirs))]
    np.testing.assert_allclose(quartiles[0], quartiles[1], atol=14)


def test_an_image_too_narrow_for_any_crop_is_cut_in_its_centre() -> None:
    box = draw_crop(sample_rng(0, 0, 0), 10, 1000, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
    assert (box.x2 - box.x1, box.y1, box.y2) == (13, 0, 10)
    assert box.x1 == (1000 - 13) // 2


def test_crops_depend_on_seed_epoch_and_row_alone() -> None:
    def draw(*key: int) -> PixelBox:
        return draw_crop(sample_rng(*key), 300, 400, **IMAGENET)

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(1, 2, 3), draw(0, 2, 3), draw(1, 0, 3), draw(1, 2, 0)}) == 4


@pytest.mark.parametrize(
    "box", [PixelBox(0, 0, 7, 5), PixelBox(13, 0, 20, 5), PixelBox(0, 7, 7, 12), PixelBox(5, 3, 6, 4)]
)
def test_a_crops_box_covers_exactly_the_pixels_cropped(box: PixelBox) -> None:
    """At four places, three of them borders; nothing around the box bleeds into the crop."""
    image = coordinates(12, 20)
    crop = crop_and_resize(image, box, 64, "bilinear")
    assert (crop[..., 0].min(), crop[..., 0].max()) == (box.x1, box.x2 - 1)
    assert (crop[..., 1].min(), crop[..., 1].max()) == (box.y1, box.y2 - 1)
    x1, y1, x2, y2 = box.normalised(12, 20)
    assert (x1 * 20, y1 * 12, x2 * 20, y2 * 12) == pytest.approx((box.x1, box.y1, box.x2, box.y2))


@pytest.mark.parametrize("size", [3, 64])
def test_nothing_around_a_crops_box_bleeds_into_it(size: int) -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:20, 12:28] = 255
    assert crop_and_resize(image, PixelBox(12, 10, 28, 20), size, "bicubic").min() == 255


def test_a_ratio_is_width_by_height() -> None:
    boxes = [draw_crop(sample_rng(0, 0, row), 300, 300, scale=(0.1, 0.3), ratio=(2, 3)) for row in range(50)]
    ratios = [(box.x2 - box.x1) / (box.y2 - box.y1) for box in boxes]
    assert 1.9 < min(ratios) < 2.2 < 2.8 < max(ratios) < 3.1


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_and_resize(stripes, PixelBox(0, 0, 64, 64), 16, "bilinear")
    assert 100 < crop[4:-4, 4:-4].min() <= crop[4:-4, 4:-4].max() < 155


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (40, 40), (7, 90)])
def test_validation_images_are_the_centre_of_the_resized_image(height: int, width: int) -> None:
    image = resize_and_centre(coordinates(height, width), 32, 0.8, "bilinear")
    assert image.shape == (32, 32, 3)
    middle = image[15:17, 15:17].astype(float).mean((0, 1))
    np.testing.assert_allclose(middle[:2], [(width - 1) / 2, (height - 1) / 2], atol=1.1)


def test_only_chosen_images_are_flipped_left_to_right() -> None:
    images = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2)
    flipped = flip_images(images, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0])
    assert torch.equal(flipped[1], images[1][:, :, [1, 0]])


def test_normalised_pixels_have_the_given_mean_and_deviation() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).repeat(1, 1, 1, 1).permute(0, 3, 1, 2)
    normal = normalise(images, torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.1]))
    torch.testing.assert_close(normal[0, :, 0, 0], torch.tensor([-1.0, 2.0, 2.0]))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [1, 16, 17, 64])
def test_crops_in_a_batch_are_torchs_own_resize(size: int, interpolation: Interpolation) -> None:
    """The operator beneath `interpolate` is called, to write into the batch."""
    image = np.random.default_rng(size).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    batch = torch.full((3, size, size, 3), 7, dtype=torch.uint8).permute(0, 3, 1, 2)
    box = PixelBox(3, 5, 20, 38)
    crop_and_resize_into(batch[1], image, box, interpolation)
    crop = torch.from_numpy(image[5:38, 3:20]).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(crop, size=(size, size), mode=interpolation, antialias=True)
    assert torch.equal(batch[1:2], expected)
    assert (batch[[0, 2]] == 7).all()
