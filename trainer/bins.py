"""How much each cell of a label map counts in each bin of a grid on a box: RoIAlign's weights, which are separable.

As torchvision computes them with `aligned=True` and adaptive sampling. Pure tensor code: any device, no wait for it.

Shapes: B batch, H W cells (y, x), L cells along one axis, Y X bins of the grid, G bins along one axis or in all,
P sampling points of a bin along one axis, N cells near enough to a bin to count in it, along one axis or in all.
"""

import math

import torch
from torch import Tensor


def grid_shape(grid: int | tuple[int, int]) -> tuple[int, int]:
    """Bins down and across; raises ValueError where there are none."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    if rows < 1 or columns < 1:
        raise ValueError(f"grid {grid}: expected at least one bin down and across")
    return rows, columns


def bin_cells(
    boxes_B4: Tensor, flips_B: Tensor | None, cells: tuple[int, int], grid: tuple[int, int]
) -> tuple[Tensor | None, Tensor]:
    """Which cells count in each bin of each box, and how much.

    Args:
        boxes_B4: (B, 4) float32 x1, y1, x2, y2 by the whole image.
        flips_B: (B,) bool, the boxes whose bins are mirrored left to right.
        cells: H, W of the map.
        grid: bins down and across.

    Returns:
        (B, G, N) int64 cells, numbered row by row, or None where all count in one bin; (B, G, N) float32 weights.
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
    """How much each cell along one axis counts in each bin of a box from low to high, both float32 in [0, 1].

    Returns:
        (B, G, L) float32, each row summing to 1.
    """
    # float32 in RoIAlign's own order of operations: another order flips `ceil` on boxes aligned to cells.
    start_B = low_B * cells - 0.5
    size_B = ((high_B * cells - 0.5) - start_B) / bins
    count_B = size_B.ceil().clamp(min=1)
    index_L = torch.arange(cells, dtype=torch.float32, device=low_B.device)
    index_G = torch.arange(bins, dtype=torch.float32, device=low_B.device)
    # A bin of a box within the image has at most this many points; the spare ones are moved to where no cell is.
    index_P = index_L[: math.ceil(cells / bins)]
    starts_BG = start_B[:, None] + index_G * size_B[:, None]
    points_BP = (index_P + 0.5) * size_B[:, None] / count_B[:, None]
    points_BGP = (starts_BG[:, :, None] + points_BP[:, None]).clamp(0, cells - 1)
    points_BGP = points_BGP.masked_fill((index_P >= count_B[:, None])[:, None], -1.0)
    hats_BGPL = (1 - (points_BGP[..., None] - index_L).abs()).clamp(min=0)
    return hats_BGPL.sum(2) / count_B[:, None, None]


def _near_cells(weights_BGL: Tensor) -> tuple[Tensor, Tensor]:
    """(B, G, N) int64 cells along one axis that hold all that counts in each bin, and their weights."""
    bins, cells = weights_BGL.shape[1:]
    # Points lie at most one cell apart, and each counts in the cells on its two sides.
    near = min(math.ceil(cells / bins) + 1, cells)
    first_BG = (weights_BGL > 0).byte().argmax(2).clamp(max=cells - near)
    cells_BGN = first_BG[:, :, None] + torch.arange(near, device=weights_BGL.device)
    return cells_BGN, weights_BGL.gather(2, cells_BGN)
