"""LabelPooling for one image, in numpy, and the training target of a crop.

Tests hold it equal to `trainer.targets.pooling` and `trainer.targets.targets`, which compute the same in torch.
Source: ReLabel (CVPR 2021), section 3.2; RoIAlign as torchvision computes it with `aligned=True` and adaptive sampling.
Shape letters: K top-k, C classes, H W cells (y, x), L cells along one axis, Y X bins of the grid, G bins and P
sampling points of a bin along one axis.
"""

import math
from typing import get_args, overload

import numpy as np
from numpy.typing import NDArray

from store.errors import LabelMapError
from store.format.schema import StoreSchema
from store.maps.regions import box_on_map, check_box
from store.maps.types import WHOLE_IMAGE, Box, LabelRow, TargetKind

KINDS: tuple[TargetKind, ...] = get_args(TargetKind)


def pool_map(
    classes_KHW: NDArray[np.uint16],
    scores_KHW: NDArray[np.float16],
    *,
    num_classes: int,
    box: Box = WHOLE_IMAGE,
    grid: int | tuple[int, int] = 1,
) -> NDArray[np.float32]:
    """Pool one label map over a box, or over each bin of a grid on it, to a logit for every class.

    A class outside a cell's top K counts as 0 there: the mean of those classes' logits, where scores are centred.

    Args:
        classes_KHW: (K, H, W) uint16 class ids.
        scores_KHW: (K, H, W) float16 scores.
        num_classes: C.
        box: x1, y1, x2, y2, normalised to [0, 1] by the part of the image that the map covers, usually all of it.
        grid: bins down and across that the box is cut into, or one number for both.

    Returns:
        (C,) float32 logits for one bin, (Y, X, C) for a grid.

    Raises:
        LabelMapError: a box without area or outside the image, or a grid without bins.
    """
    rows, columns = grid_shape(grid)
    check_box(box)
    scores = scores_KHW.astype(np.float32)
    down_YH = axis_weights(box[1], box[3], scores.shape[1], rows)
    across_XW = axis_weights(box[0], box[2], scores.shape[2], columns)
    weights_GHW = np.einsum("yh,xw->yxhw", down_YH, across_XW).reshape(rows * columns, *scores.shape[1:])
    pooled_GC = np.zeros((rows * columns, num_classes), np.float32)
    classes = classes_KHW.reshape(-1).astype(np.int64)
    for pooled_C, weights_HW in zip(pooled_GC, weights_GHW, strict=True):
        np.add.at(pooled_C, classes, (weights_HW * scores).reshape(-1))
    return pooled_GC[0] if rows * columns == 1 else pooled_GC.reshape(rows, columns, num_classes)


def grid_shape(grid: int | tuple[int, int]) -> tuple[int, int]:
    """Bins down and across of a grid; LabelMapError unless both are at least one."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    if rows < 1 or columns < 1:
        raise LabelMapError(f"grid {grid}: expected at least one bin down and across")
    return rows, columns


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) float32 probabilities of (C,) logits."""
    exponentials = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum(), np.float32)


def axis_weights(low: float, high: float, cells: int, bins: int = 1) -> NDArray[np.float32]:
    """Weight of each cell along one axis in each bin of a box's side.

    RoIAlign's weights are separable: the weights of a bin are the outer product of those along y and along x.

    Args:
        low: where the side begins, in [0, 1].
        high: where it ends, in [0, 1].
        cells: L.
        bins: G.

    Returns:
        (G, L) float32, each row summing to 1.
    """
    # float32 in RoIAlign's own order of operations: another order flips `ceil` on boxes aligned to cells.
    length, half = np.float32(cells), np.float32(0.5)
    start = np.float32(low) * length - half
    size = ((np.float32(high) * length - half) - start) / np.float32(bins)
    count = max(math.ceil(size), 1)
    starts_G = start + np.arange(bins, dtype=np.float32) * size
    points_P = (np.arange(count, dtype=np.float32) + half) * size / np.float32(count)
    points_GP = np.clip(starts_G[:, None] + points_P, 0, cells - 1)
    hats_GPL = np.maximum(0, 1 - np.abs(points_GP[:, :, None] - np.arange(cells, dtype=np.float32)))
    return np.asarray(hats_GPL.sum(axis=1) / np.float32(count), np.float32)


def cell_confidence(scores: NDArray[np.float16], tail_logsumexp: NDArray[np.float16] | None) -> NDArray[np.float32]:
    """The probability of each cell's top-1 class: exact with a tail, else among the cell's kept classes.

    Args:
        scores: (..., K, H, W) float16 logits.
        tail_logsumexp: (..., H, W) float16 log-sum-exp of the other logits.

    Returns:
        (..., H, W) float32.
    """
    first = scores[..., :1, :, :].astype(np.float32)
    others = np.exp(scores - first).sum(axis=-3)
    if tail_logsumexp is not None:
        with np.errstate(over="ignore"):  # a tail far above the first class leaves it nothing
            others = others + np.exp(tail_logsumexp - first[..., 0, :, :])
    return np.asarray(1 / others, np.float32)


def crop_target(
    schema: StoreSchema,
    row: LabelRow,
    *,
    box: Box = WHOLE_IMAGE,
    kind: TargetKind = "relabel",
    temperature: float = 1.0,
    image_size: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """The training target of a crop, without label smoothing.

    Args:
        schema: of the row's store.
        row: its image could be decoded.
        box: the crop, normalised by the whole image.
        kind: `relabel` pools the box, `global` the whole map, the `-single` kinds keep only the arg max of these,
            `original` is the dataset's label.
        temperature: divides the pooled logits before softmax.
        image_size: height and width in pixels, for a box where maps cover the centre of each image.

    Returns:
        (C,) float32 probabilities; of the part of the crop that the map covers.

    Raises:
        LabelMapError: a box without area, outside the image or outside what the map covers, a temperature that is not
            above 0, or no label.
    """
    if not 0 < temperature < math.inf:
        raise LabelMapError(f"temperature {temperature}: expected a number above 0")
    if kind == "original":
        if not has_label(schema, row):
            raise LabelMapError(f"{row.key!r} has no label among the teacher's classes; choose another kind of target")
        return _one_hot(row.label, schema.num_classes)
    logits_C = pool_map(
        row.classes,
        row.scores,
        num_classes=schema.num_classes,
        box=WHOLE_IMAGE if kind.startswith("global") else box_on_map(schema.preprocessing, box, image_size),
    )
    if kind.endswith("-single"):
        return _one_hot(int(logits_C.argmax()), schema.num_classes)
    return softmax(logits_C / np.float32(temperature))


def has_label(schema: StoreSchema, row: LabelRow) -> bool:
    """Whether the row's label is one of the teacher's classes."""
    return is_class(row.label, schema.num_classes)


@overload
def is_class(label: int, num_classes: int) -> bool: ...
@overload
def is_class(label: NDArray[np.int32], num_classes: int) -> NDArray[np.bool_]: ...
def is_class(label: int | NDArray[np.int32], num_classes: int) -> bool | NDArray[np.bool_]:
    """Whether a label, or each label of an array, is one of the teacher's classes."""
    return (label >= 0) & (label < num_classes)


def _one_hot(class_id: int, num_classes: int) -> NDArray[np.float32]:
    target_C = np.zeros(num_classes, np.float32)
    target_C[class_id] = 1
    return target_C
