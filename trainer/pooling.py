"""LabelPooling: a crop's box on a label map to one logit per class, without a dense map.

RoIAlign's weights for a box are separable, so pooling is one scatter-add of K*H*W weighted scores per image.
Source: ReLabel (CVPR 2021), section 3.2; RoIAlign as torchvision computes it with `aligned=True` and adaptive
sampling. `store.pooling` is this file's numpy twin. Pure tensor code: any device, no wait for it.

Shapes: B batch, K ranks, C classes, H W cells (y, x), L cells along one axis, P sampling points along one axis.
"""

import math

import torch
from torch import Tensor, nn

from trainer.kinds import Fill


class LabelPooling(nn.Module):
    """`pool_logits` with its settings, for use as a layer."""

    def __init__(self, num_classes: int, *, fill: Fill = "zero") -> None:
        super().__init__()
        self.num_classes, self.fill = num_classes, fill

    def forward(self, classes_BKHW: Tensor, scores_BKHW: Tensor, boxes_B4: Tensor, tail_BHW: Tensor | None) -> Tensor:
        """(B, C) float32 logits; see `pool_logits`."""
        return pool_logits(
            classes_BKHW, scores_BKHW, boxes_B4, num_classes=self.num_classes, fill=self.fill, tail_BHW=tail_BHW
        )


def pool_logits(
    classes_BKHW: Tensor,
    scores_BKHW: Tensor,
    boxes_B4: Tensor,
    *,
    num_classes: int,
    fill: Fill = "zero",
    tail_BHW: Tensor | None = None,
) -> Tensor:
    """Pool one box per label map to a logit for every class.

    Args:
        classes_BKHW: (B, K, H, W) integer class ids below `num_classes`, different within a cell.
        scores_BKHW: (B, K, H, W) floating logits, descending along K.
        boxes_B4: (B, 4) float32 x1, y1, x2, y2 by the whole image; not checked here, see `check_boxes`.
        num_classes: C.
        fill: the logit of classes outside a cell's top K: 0, the tail's mass spread evenly, or the lowest kept score.
        tail_BHW: (B, H, W) log-sum-exp of the other logits; needed for `fill="tail"`.

    Returns:
        (B, C) float32 logits.

    Raises:
        ValueError: a fill that needs a tail where there is none.
    """
    batch, _, height, width = classes_BKHW.shape
    scores_BKHW, (x1_B, y1_B, x2_B, y2_B) = scores_BKHW.float(), boxes_B4.float().unbind(1)
    weights_BHW = axis_weights(y1_B, y2_B, height)[:, :, None] * axis_weights(x1_B, x2_B, width)[:, None, :]
    fill_BHW = _fill_logits(scores_BKHW, num_classes, fill, tail_BHW)
    if fill_BHW is None:
        pooled_BC = torch.zeros(batch, num_classes, device=scores_BKHW.device)
    else:
        # A fill keeps pooling sparse: pool the fill itself, then add what the kept classes have beyond it.
        pooled_BC = (weights_BHW * fill_BHW).sum((1, 2))[:, None].repeat(1, num_classes)
        scores_BKHW = scores_BKHW - fill_BHW[:, None]
    values_BKHW = weights_BHW[:, None] * scores_BKHW
    return pooled_BC.scatter_add_(1, classes_BKHW.reshape(batch, -1).long(), values_BKHW.reshape(batch, -1))


def axis_weights(low_B: Tensor, high_B: Tensor, cells: int) -> Tensor:
    """How much each cell along one axis counts in a box from low to high, both float32 in [0, 1].

    Returns:
        (B, L) float32, each row summing to 1.
    """
    # float32 in RoIAlign's own order of operations: another order flips `ceil` on boxes aligned to cells.
    start_B = low_B * cells - 0.5
    extent_B = (high_B * cells - 0.5) - start_B
    count_B = extent_B.ceil().clamp(min=1)
    step_B = extent_B / count_B
    index_L = torch.arange(cells, dtype=torch.float32, device=low_B.device)
    # A box within the image has at most `cells` points, so P = L and the spare ones are masked.
    points_BP = (start_B[:, None] + (index_L + 0.5) * step_B[:, None]).clamp(0, cells - 1)
    hats_BPL = (1 - (points_BP[:, :, None] - index_L).abs()).clamp(min=0)
    used_BP = index_L < count_B[:, None]
    return (hats_BPL * used_BP[:, :, None]).sum(1) / count_B[:, None]


def check_boxes(boxes_B4: Tensor) -> None:
    """Raise ValueError unless every box lies within the image and has an area; waits for the boxes' device."""
    x1_B, y1_B, x2_B, y2_B = boxes_B4.unbind(1)
    valid_B = (x1_B >= 0) & (x1_B < x2_B) & (x2_B <= 1) & (y1_B >= 0) & (y1_B < y2_B) & (y2_B <= 1)
    if not bool(valid_B.all()):
        i = int((~valid_B).nonzero()[0, 0])
        raise ValueError(f"box {i} {boxes_B4[i].tolist()}: expected 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")


def _fill_logits(scores_BKHW: Tensor, num_classes: int, fill: Fill, tail_BHW: Tensor | None) -> Tensor | None:
    """(B, H, W) logit of the classes outside each cell's top K; None stands for 0."""
    top_k = scores_BKHW.shape[1]
    if fill == "zero" or top_k == num_classes:
        return None
    if fill == "min":
        return scores_BKHW[:, -1]
    if tail_BHW is None:
        raise ValueError("fill 'tail' needs the tail, which these labels do not have; use 'zero' or 'min'")
    return tail_BHW.float() - math.log(num_classes - top_k)
