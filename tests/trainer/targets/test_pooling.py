"""LabelPooling against torchvision's RoIAlign on dense maps, and against the store's numpy version."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from store.errors import LabelMapError
from store.maps.pooling import pool_map
from tests.builders.maps import random_boxes, random_maps
from tests.builders.paths import DOCS
from trainer.targets.pooling import LabelPooling, axis_weights, check_boxes, pool_logits

PAGE = DOCS / "pooling.md"


def dense_map(classes: Tensor, scores: Tensor, num_classes: int) -> Tensor:
    """(B, C, H, W): the kept scores, and 0 for every other class."""
    batch, _, height, width = classes.shape
    dense = torch.zeros(batch, num_classes, height, width, device=classes.device)
    return dense.scatter_(1, classes.long(), scores.float())


def dense_pooling(dense: Tensor, boxes: Tensor, grid: tuple[int, int] = (1, 1)) -> Tensor:
    """The reference, torchvision's RoIAlign on a dense map: (B, C), or (B, Y, X, C) for a grid."""
    batch, _, height, width = dense.shape
    cells = boxes * torch.tensor([width, height, width, height], dtype=torch.float32, device=boxes.device)
    index = torch.arange(batch, dtype=torch.float32, device=boxes.device)[:, None]
    pooled: Tensor = roi_align(dense, torch.cat([index, cells], 1), grid, 1.0, -1, aligned=True)
    return pooled[:, :, 0, 0] if grid == (1, 1) else pooled.permute(0, 2, 3, 1)


sizes = st.integers(1, 17)
grids = st.tuples(st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), sizes, sizes, st.integers(1, 40), st.integers(1, 5), grids)
def test_pooling_equals_roi_align_on_the_dense_map(
    seed: int, height: int, width: int, num_classes: int, k: int, grid: tuple[int, int]
) -> None:
    maps = random_maps(seed, 32, min(k, num_classes), num_classes, height, width)  # 100 x 32 boxes
    boxes = random_boxes(seed, 32, height, width)
    ours = pool_logits(*maps, boxes, num_classes=num_classes, grid=grid)
    dense = dense_map(*maps, num_classes)
    torch.testing.assert_close(ours, dense_pooling(dense, boxes, grid), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [2, 7, 14])
def test_a_student_s_token_grid_equals_roi_align_at_the_teacher_s_size(grid: int) -> None:
    maps, boxes = random_maps(0, 16, 5, 100, 15, 15), random_boxes(0, 16, 15, 15)
    ours = pool_logits(*maps, boxes, num_classes=100, grid=grid)
    dense = dense_map(*maps, 100)
    torch.testing.assert_close(ours, dense_pooling(dense, boxes, (grid, grid)), rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [1, (3, 4)])
def test_pooling_on_the_gpu_equals_pooling_on_the_cpu(cuda: torch.device, grid: int | tuple[int, int]) -> None:
    maps, boxes = random_maps(0, 256, 5, 1000, 15, 15), random_boxes(0, 256, 15, 15)
    flips = torch.arange(256) % 2 == 0
    layer = LabelPooling(1000, grid=grid)
    ours = layer(*(part.to(cuda) for part in (*maps, boxes, flips)))
    torch.testing.assert_close(ours.cpu(), layer(*maps, boxes, flips), rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [(1, 1), (3, 4)])
def test_pooling_on_the_gpu_equals_roi_align_and_never_waits(cuda: torch.device, grid: tuple[int, int]) -> None:
    classes, scores = (part.to(cuda) for part in random_maps(1, 1024, 5, 1000, 15, 12))
    boxes, flips = random_boxes(1, 1024, 15, 12).to(cuda), torch.zeros(1024, dtype=torch.bool, device=cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = pool_logits(classes, scores, boxes, num_classes=1000, grid=grid, flips_B=flips)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    dense = dense_map(classes, scores, 1000)
    torch.testing.assert_close(ours, dense_pooling(dense, boxes, grid), rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), sizes, sizes, st.integers(1, 12), st.integers(1, 5), grids)
def test_pooling_equals_the_store_s_numpy_version(
    seed: int, height: int, width: int, num_classes: int, k: int, grid: tuple[int, int]
) -> None:
    classes, scores = random_maps(seed, 8, min(k, num_classes), num_classes, height, width)
    boxes = random_boxes(seed, 8, height, width)
    ours = pool_logits(classes, scores, boxes, num_classes=num_classes, grid=grid)
    for i in range(8):
        x1, y1, x2, y2 = (float(side) for side in boxes[i])
        theirs = pool_map(
            classes[i].numpy(),
            scores[i].numpy(),
            num_classes=num_classes,
            box=(x1, y1, x2, y2),
            grid=grid,
        )
        np.testing.assert_allclose(ours[i].numpy(), theirs, rtol=0, atol=2e-5, strict=True)


def test_pooling_twice_gives_the_same_bits() -> None:
    maps, boxes = random_maps(2, 32, 5, 50, 15, 15), random_boxes(2, 32, 15, 15)
    first, second = (pool_logits(*maps, boxes, num_classes=50, grid=3) for _ in range(2))
    assert torch.equal(first, second)


def hot_cell_map(y: int, x: int) -> tuple[Tensor, Tensor]:
    """A map of 2 x 4 cells, class 0 everywhere at 0, class 1 at 10 in one cell."""
    classes, scores = torch.zeros(1, 1, 2, 4, dtype=torch.uint16), torch.zeros(1, 1, 2, 4)
    classes[0, 0, y, x], scores[0, 0, y, x] = 1, 10.0
    return classes, scores


@pytest.mark.parametrize(
    ("y", "x", "box"),
    [
        (0, 0, (0.0, 0.0, 0.25, 0.5)),
        (0, 3, (0.75, 0.0, 1.0, 0.5)),
        (1, 0, (0.0, 0.5, 0.25, 1.0)),
        (1, 2, (0.5, 0.5, 0.75, 1.0)),
    ],
)
def test_only_a_crop_of_the_hot_cell_sees_it_whole(y: int, x: int, box: tuple[float, ...]) -> None:
    maps = hot_cell_map(y, x)
    boxes = [(0.0, 0.0, 0.25, 0.5), (0.75, 0.0, 1.0, 0.5), (0.0, 0.5, 0.25, 1.0), (0.5, 0.5, 0.75, 1.0)]
    for other in boxes:
        pooled = pool_logits(*maps, torch.tensor([other]), num_classes=2)
        assert pooled[0, 1] == (10.0 if other == box else 0.0), other


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 1.0, 0.5), 2.5),  # top half: one of its four cells
        ((0.0, 0.5, 1.0, 1.0), 0.0),  # bottom half
        ((0.0, 0.0, 0.5, 1.0), 0.0),  # left half
        ((0.5, 0.0, 1.0, 1.0), 2.5),  # right half
        ((0.0, 0.0, 1.0, 1.0), 1.25),  # one of eight
    ],
)
def test_boxes_are_x_then_y_on_a_map_that_is_not_square(box: tuple[float, ...], expected: float) -> None:
    pooled = pool_logits(*hot_cell_map(0, 3), torch.tensor([box]), num_classes=2)
    torch.testing.assert_close(pooled, torch.tensor([[0.0, expected]]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_weights_along_an_axis_sum_to_one(seed: int, cells: int, bins: int) -> None:
    boxes = random_boxes(seed, 16, cells, cells)
    weights = axis_weights(boxes[:, 0], boxes[:, 2], cells, bins)
    torch.testing.assert_close(weights.sum(2), torch.ones(16, bins))


def test_pooling_of_a_flipped_map_is_pooling_of_the_flipped_box() -> None:
    classes, scores = random_maps(3, 16, 2, 6, 5, 7)
    boxes = random_boxes(3, 16, 5, 7)
    flipped = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    there = pool_logits(classes.flip(-1), scores.flip(-1), flipped, num_classes=6)
    # 1 - x rounds, which near a cell's border takes one sampling point more: compare where it does not.
    same = ((1 - flipped[:, 0] == boxes[:, 2]) & (1 - flipped[:, 2] == boxes[:, 0])).nonzero()[:, 0]
    assert len(same) >= 8
    here = pool_logits(classes, scores, boxes, num_classes=6)
    torch.testing.assert_close(there[same], here[same], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((1, 2), [[0.0, 5.0]]),  # the top right cell is one of the right half's two by two: columns 2 and 3
        ((2, 1), [[5.0], [0.0]]),
        ((2, 2), [[0.0, 10.0], [0.0, 0.0]]),
    ],
)
def test_a_grid_s_rows_lie_below_one_another_and_its_columns_side_by_side(
    grid: tuple[int, int], expected: list[list[float]]
) -> None:
    pooled = pool_logits(*hot_cell_map(0, 3), torch.tensor([[0.5, 0.0, 1.0, 1.0]]), num_classes=2, grid=grid)
    torch.testing.assert_close(pooled[0, :, :, 1], torch.tensor(expected))


def test_the_grid_of_a_flipped_crop_is_mirrored_left_to_right() -> None:
    maps, boxes = random_maps(3, 8, 2, 6, 5, 7), random_boxes(3, 8, 5, 7)
    flips = torch.arange(8) % 2 == 0
    plain = pool_logits(*maps, boxes, num_classes=6, grid=(3, 4))
    flipped = pool_logits(*maps, boxes, num_classes=6, grid=(3, 4), flips_B=flips)
    assert torch.equal(flipped[flips], plain[flips].flip(2))
    assert torch.equal(flipped[~flips], plain[~flips])
    assert not torch.equal(flipped, plain)


def test_one_target_of_a_flipped_crop_is_that_of_the_crop() -> None:
    maps, boxes, layer = random_maps(3, 8, 2, 6, 5, 7), random_boxes(3, 8, 5, 7), LabelPooling(6)
    assert torch.equal(layer(*maps, boxes, torch.ones(8, dtype=torch.bool)), layer(*maps, boxes))


@pytest.mark.parametrize("grid", [0, (2, 0), (-1, 2)])
def test_a_grid_without_bins_is_refused(grid: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected at least one bin"):
        LabelPooling(6, grid=grid)
    with pytest.raises(LabelMapError, match="expected at least one bin"):
        pool_map(np.zeros((1, 2, 2), np.uint16), np.zeros((1, 2, 2), np.float16), num_classes=2, grid=grid)


def test_the_module_is_the_function() -> None:
    maps, boxes = random_maps(7, 4, 2, 6, 3, 3), random_boxes(7, 4, 3, 3)
    expected = pool_logits(*maps, boxes, num_classes=6, grid=2)
    assert torch.equal(LabelPooling(6, grid=2)(*maps, boxes), expected)


@pytest.mark.parametrize(
    "box",
    [(0.2, 0.0, 0.2, 1.0), (0.0, 0.6, 1.0, 0.5), (-0.1, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.1), (0, 0, math.nan, 1)],
)
def test_boxes_without_area_or_outside_the_image_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"box 1 .*expected 0 <= x1 < x2 <= 1"):
        check_boxes(torch.tensor([(0.0, 0.0, 1.0, 1.0), box]))


def test_every_example_of_the_docs_gives_its_stated_result() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block, found)
    assert found["target_left"][0, 3] == pytest.approx(0.9999, abs=1e-4)
    torch.testing.assert_close(found["target_whole"][0, [3, 7]], torch.full((2,), 0.495), rtol=0, atol=5e-4)
    assert (found["imagenet_1k"], found["imagenet_21k"]) == pytest.approx((0.957, 0.502), abs=5e-4)
    assert found["grid_logits"].shape == (1, 14, 14, 10)
    assert found["token_targets"][0, 0].argmax() == 7  # mirrored: the first token is what lies on the right
    torch.testing.assert_close(found["mixed_targets"].sum(1), torch.ones(8))
    assert found["loss"] == pytest.approx(math.log(10))


def test_a_pooling_layer_prints_its_settings() -> None:
    assert repr(LabelPooling(10)) == "LabelPooling(num_classes=10, grid=1)"
    model = torch.nn.Sequential(LabelPooling(1000, grid=(7, 14)))
    assert "LabelPooling(num_classes=1000, grid=(7, 14))" in str(model)
