"""The v2 crop that returns its box, and what v2 does with pooled targets."""

import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image

from trainer.augment.crop_with_box import CropWithBox
from trainer.targets.pooling import check_boxes

HEIGHT, WIDTH = 40, 60
# The pixel at (y, x) is (x, y, 0), so that a crop shows where it is from.
PLACES = torch.stack(torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")[::-1])
IMAGE = torch.cat([PLACES, torch.zeros(1, HEIGHT, WIDTH)]).to(torch.uint8)


@pytest.mark.parametrize("kind", ["tensor", "tv_tensor", "pil"])
def test_box_is_where_the_crop_is_from(kind: str) -> None:
    image = {"tensor": IMAGE, "tv_tensor": tv_tensors.Image(IMAGE), "pil": to_pil_image(IMAGE)}[kind]
    torch.manual_seed(0)
    for _ in range(20):
        crop, box = CropWithBox(200, interpolation=v2.InterpolationMode.NEAREST)(image)
        assert type(crop) is type(image) or isinstance(crop, Image.Image)
        pixels = v2.functional.pil_to_tensor(crop) if isinstance(crop, Image.Image) else crop
        corners = (*pixels[:2, 0, 0].tolist(), *(pixels[:2, -1, -1] + 1).tolist())
        found = (box * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).round().int().tolist()
        assert tuple(found) == corners
        check_boxes(box[None])


def test_box_passes_through_what_follows() -> None:
    torch.manual_seed(0)
    plain = CropWithBox(8)(IMAGE)
    torch.manual_seed(0)
    steps = [CropWithBox(8), v2.RandomHorizontalFlip(p=1)]
    flipped, box = v2.Compose(steps)(IMAGE)
    assert torch.equal(flipped, plain[0].flip(-1))
    assert torch.equal(box, plain[1])


@pytest.mark.parametrize("mix", [v2.CutMix, v2.MixUp])
def test_v2_mixes_pooled_targets_as_they_are(mix: type[v2.Transform]) -> None:
    torch.manual_seed(0)
    images, targets = torch.rand(8, 3, 16, 16), torch.rand(8, 5).softmax(1)
    mixed, mixed_targets = mix(num_classes=5)(images, targets)
    # Each is a mean, weighted by lambda, of a sample and the one before it in the batch.
    before = targets.roll(1, 0)
    share = ((mixed_targets - before) / (targets - before))[0, 0]
    assert 0 < share < 1
    assert torch.allclose(mixed_targets, share * targets + (1 - share) * before, atol=1e-6)
    assert not torch.equal(mixed, images)
