"""Figures of many label maps at once: pooled logits, entropy, top-1 classes, classes that are present.

Shape letters: N images, K top-k, C classes, H W cells (y, x), P pairs of an image and a class that is present in it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from store.maps.pooling import axis_weights, cell_confidence
from store.maps.types import LabelRows

Floats = NDArray[np.float32]


def pool_whole(maps: LabelRows, *, num_classes: int) -> Floats:
    """Pool each whole image; equal to `store.maps.pooling.pool_map` image by image, in one sum for all.

    Args:
        maps: label maps of N images.
        num_classes: C.

    Returns:
        (N, C) float32 logits.
    """
    scores = maps.scores.astype(np.float32)
    n, _, h, w = scores.shape
    weights_HW = np.outer(axis_weights(0, 1, h)[0], axis_weights(0, 1, w)[0])
    index = np.arange(n)[:, None, None, None] * num_classes + maps.classes
    pooled = np.bincount(index.reshape(-1), weights=(scores * weights_HW).reshape(-1), minlength=n * num_classes)
    logits: Floats = pooled.astype(np.float32).reshape(n, num_classes)
    return logits


def softmax_entropy(logits_NC: Floats) -> tuple[Floats, Floats]:
    """Probabilities and their entropy; overwrites the logits.

    Args:
        logits_NC: (N, C) float32 logits.

    Returns:
        (N, C) probabilities and (N,) entropies in bits.
    """
    logits_NC -= logits_NC.max(axis=1, keepdims=True)
    exponentials = np.exp(logits_NC)
    total = exponentials.sum(axis=1)
    # log Z - E[logit], both relative to the largest logit.
    nats = np.log(total) - np.einsum("nc,nc->n", exponentials, logits_NC) / total
    exponentials /= total[:, None]
    return exponentials, np.maximum(nats, 0) / np.log(2, dtype=np.float32)


def labels_top1(maps: LabelRows, labels_N: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(N,) whether an image's label is the top-1 class of at least one of its cells."""
    is_top1: NDArray[np.bool_] = (maps.classes[:, 0] == labels_N[:, None, None]).any(axis=(1, 2))
    return is_top1


def not_positive(maps: LabelRows, *, num_classes: int) -> Floats:
    """(N,) share of each image's cells in which no score is above 0, the value of the classes that are not kept."""
    if maps.scores.shape[1] == num_classes:  # every class is kept, so a shift of all means nothing
        return np.zeros(len(maps.scores), np.float32)
    share: Floats = (maps.scores[:, 0] <= 0).mean(axis=(1, 2), dtype=np.float32)
    return share


def top1_classes(maps: LabelRows, *, num_classes: int) -> NDArray[np.bool_]:
    """(C,) whether a class is the top-1 class of any cell of any image."""
    is_top1 = np.zeros(num_classes, np.bool_)
    is_top1[maps.classes[:, 0]] = True
    return is_top1


def present_classes(
    maps: LabelRows, *, threshold: float, cells: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The classes that are present in each image: top-1 with at least `threshold` in at least `cells` cells.

    Args:
        maps: label maps of N images.
        threshold: probability, exact where there is a tail, else among the cell's kept classes.
        cells: number of cells.

    Returns:
        (P,) image and (P,) class of each pair, each pair once, in rising order.
    """
    top1 = maps.classes[:, 0].reshape(len(maps.classes), math.prod(maps.classes.shape[2:])).astype(np.int32)
    is_confident = cell_confidence(maps.scores, maps.tail_logsumexp).reshape(top1.shape) >= threshold
    ordered = np.sort(np.where(is_confident, top1, -1), axis=1)  # -1 is no class
    # A class that fills `cells` cells begins a run of equal values of that length.
    starts = ordered[:, : ordered.shape[1] - cells + 1]
    found = (starts >= 0) & (starts == ordered[:, cells - 1 :])
    found[:, 1:] &= starts[:, 1:] != starts[:, :-1]
    rows, columns = np.nonzero(found)
    return rows, starts[rows, columns]
