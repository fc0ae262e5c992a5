"""LabelPooling: RoIAlign of label maps to one logit per class, or to a grid of them, without a dense map.

RoIAlign's weights for a box are separable, so pooling is one scatter-add of K*H*W weighted scores per image and bin.
Source: ReLabel (CVPR 2021), section 3.2; the weights are those of torchvision's `roi_align` with `aligned=True` and
adaptive sampling. `store.maps.pooling` does the same in numpy. Pure tensor code: any device, no synchronisation.

Shapes: B batch, K kept classes of a cell, C classes, H W cells (y, x), L cells of a whole map or along one axis,
Y X bins of the grid, G bins in all or along one axis, P sampling points of a bin along one axis, N cells near enough to
a bin to have a weight in it.
"""

import math

import torch
from torch import Tensor, nn


class LabelPooling(nn.Module):
    """`pool_logits` as a layer without weights.

    Args:
        num_classes: C.
        grid: bins down and across that each box is cut into, or one number for both.

    Shapes:
        classes_BKHW (B, K, H, W) integers, scores_BKHW (B, K, H, W) floating, boxes_B4 (B, 4) float32 in [0, 1];
        flips_B (B,) bool. Output: (B, C) float32 logits for one bin, (B, Y, X, C) for a grid.

    Raises:
        ValueError: a grid without bins.

    >>> LabelPooling(1000, grid=7)
    LabelPooling(num_classes=1000, grid=7)
    """

    def __init__(self, num_classes: int, *, grid: int | tuple[int, int] = 1) -> None:
        super().__init__()
        grid_shape(grid)
        self.num_classes, self.grid = num_classes, grid

    def extra_repr(self) -> str:
        """The settings, for `print(module)`."""
        return f"num_classes={self.num_classes}, grid={self.grid}"

    def forward(
        self,
        classes_BKHW: Tensor,
        scores_BKHW: Tensor,
        boxes_B4: Tensor,
        flips_B: Tensor | None = None,
    ) -> Tensor:
        """Pool one box per label map; see `pool_logits` for arguments and errors."""
        return pool_logits(
            classes_BKHW,
            scores_BKHW,
            boxes_B4,
            num_classes=self.num_classes,
            grid=self.grid,
            flips_B=flips_B,
        )


def pool_logits(
    classes_BKHW: Tensor,
    scores_BKHW: Tensor,
    boxes_B4: Tensor,
    *,
    num_classes: int,
    grid: int | tuple[int, int] = 1,
    flips_B: Tensor | None = None,
) -> Tensor:
    """Pool one box per label map to a logit for every class.

    A class outside a cell's top K counts as 0 there: the mean of those classes' logits, where scores are centred.

    Args:
        classes_BKHW: (B, K, H, W) integer class ids below `num_classes`, different within a cell. Undecodable rows
            hold other ids, so they must be left out.
        scores_BKHW: (B, K, H, W) floating scores, descending along K.
        boxes_B4: (B, 4) float32 x1, y1, x2, y2, normalised by the whole image; not checked here, see `check_boxes`.
        num_classes: C.
        grid: bins down and across that each box is cut into, or one number for both. ReLabel uses 1.
        flips_B: (B,) bool, the crops that are mirrored left to right; mirrors their grids. No effect on one bin.

    Returns:
        (B, C) float32 logits for one bin, (B, Y, X, C) for a grid; `flatten(1, 2)` gives a row-major list of tokens.

    Raises:
        ValueError: a grid without bins.
    """
    (batch, top_k, height, width), (rows, columns) = classes_BKHW.shape, grid_shape(grid)
    cells_BGN, weights_BGN = bin_cells(boxes_B4.float(), flips_B, (height, width), (rows, columns))
    pooled_BGC = torch.zeros(batch, rows * columns, num_classes, device=scores_BKHW.device)
    # One k at a time: the largest temporaries, the int64 classes, then stay small enough for the allocator to reuse
    # their pages, whose clearing took three quarters of the time on a CPU.
    for k in range(top_k):
        scores_BGN = _take(scores_BKHW[:, k].float(), cells_BGN)
        classes_BGN = _take(classes_BKHW[:, k].long(), cells_BGN)
        pooled_BGC.scatter_add_(2, classes_BGN, weights_BGN * scores_BGN)
    return pooled_BGC[:, 0] if rows * columns == 1 else pooled_BGC.reshape(batch, rows, columns, num_classes)


def check_boxes(boxes_B4: Tensor) -> None:
    """Raise ValueError unless every box is within the image and has an area; waits for the boxes' device."""
    x1_B, y1_B, x2_B, y2_B = boxes_B4.unbind(1)
    valid_B = (x1_B >= 0) & (x1_B < x2_B) & (x2_B <= 1) & (y1_B >= 0) & (y1_B < y2_B) & (y2_B <= 1)
    if not bool(valid_B.all()):
        i = int((~valid_B).nonzero()[0, 0])
        raise ValueError(f"box {i} {boxes_B4[i].tolist()}: expected 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")


def _take(values_BHW: Tensor, cells_BGN: Tensor | None) -> Tensor:
    """The values of each bin's cells (B, G, N), or of all cells (B, 1, L) without a selection."""
    values_BL = values_BHW.flatten(1)
    return values_BL[:, None] if cells_BGN is None else values_BL.gather(1, cells_BGN.flatten(1)).view_as(cells_BGN)


# RoIAlign's weights of the cells


def grid_shape(grid: int | tuple[int, int]) -> tuple[int, int]:
    """Bins down and across; raises ValueError if either is below 1."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    if rows < 1 or columns < 1:
        raise ValueError(f"grid {grid}: expected at least one bin down and across")
    return rows, columns


def bin_cells(
    boxes_B4: Tensor, flips_B: Tensor | None, cells: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor | None, Tensor]:
    """The cells that have a weight in each bin of each box, and their weights.

    Args:
        boxes_B4: (B, 4) float32 x1, y1, x2, y2, normalised by the whole image.
        flips_B: (B,) bool, the boxes whose bins are mirrored left to right.
        cells: H, W of the map.
        grid: bins down and across.

    Returns:
        (B, G, N) int64 cells, numbered row by row, or None for all cells in one bin; (B, G, N) float32 weights.
    """
    x1_B, y1_B, x2_B, y2_B = boxes_B4.unbind(1)
    down_BYH = axis_weights(y1_B, y2_B, cells[0], grid[0])
    across_BXW = axis_weights(x1_B, x2_B, cells[1], grid[1])
    if grid == (1, 1):
        return None, (down_BYH[:, :, :, None] * across_BXW[:, :, None]).flatten(2)
    if flips_B is not None:
        across_BXW = torch.where(flips_B[:, None, None], across_BXW.flip(1), across_BXW)
    y_BYN, down_BYN = _near_cells(down_BYH)
    x_BXN, across_BXN = _near_cells(across_BXW)
    cells_BYXNN = (y_BYN * cells[1])[:, :, None, :, None] + x_BXN[:, None, :, None]
    weights_BYXNN = down_BYN[:, :, None, :, None] * across_BXN[:, None, :, None]
    return cells_BYXNN.flatten(3).flatten(1, 2), weights_BYXNN.flatten(3).flatten(1, 2)


def axis_weights(low_B: Tensor, high_B: Tensor, cells: int, bins: int = 1) -> Tensor:
    """The weight of each cell along one axis in each bin of a box from low to high, both (B,) float32 in [0, 1].

    Returns:
        (B, G, L) float32, each row summing to 1.
    """
    # In float32 and RoIAlign's order of operations: another order changes `ceil` for boxes aligned to cells.
    start_B = low_B * cells - 0.5
    size_B = ((high_B * cells - 0.5) - start_B) / bins
    count_B = size_B.ceil().clamp(min=1)
    index_L = torch.arange(cells, dtype=torch.float32, device=low_B.device)
    index_G = torch.arange(bins, dtype=torch.float32, device=low_B.device)
    # A bin of a box within the image has at most this many points; the unused ones are moved away from all cells.
    index_P = index_L[: math.ceil(cells / bins)]
    starts_BG = start_B[:, None] + index_G * size_B[:, None]
    points_BP = (index_P + 0.5) * size_B[:, None] / count_B[:, None]
    points_BGP = (starts_BG[:, :, None] + points_BP[:, None]).clamp(0, cells - 1)
    points_BGP = points_BGP.masked_fill((index_P >= count_B[:, None])[:, None], -1.0)
    hats_BGPL = (1 - (points_BGP[..., None] - index_L).abs()).clamp(min=0)
    return hats_BGPL.sum(2) / count_B[:, None, None]


def _near_cells(weights_BGL: Tensor) -> tuple[Tensor, Tensor]:
    """(B, G, N) int64 cells along one axis that include all with a weight in each bin, and their weights."""
    bins, cells = weights_BGL.shape[1:]
    # Points are at most one cell apart, and each has a weight in the cells on its two sides.
    near = min(math.ceil(cells / bins) + 1, cells)
    first_BG = (weights_BGL > 0).byte().argmax(2).clamp(max=cells - near)
    cells_BGN = first_BG[:, :, None] + torch.arange(near, device=weights_BGL.device)
    return cells_BGN, weights_BGL.gather(2, cells_BGN)
