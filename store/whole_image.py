"""What the label maps of many images say of each of them as a whole.

Letters: N images, K ranks, C classes, H W cells (y, x), P pairs of an image and a class that is present in it.
"""

import numpy as np
from numpy.typing import NDArray

from store.group import LabelRows
from store.pooling import Fill, axis_weights, cell_confidence, fill_logits

Floats = NDArray[np.float32]


def pool_whole(maps: LabelRows, *, num_classes: int, fill: Fill) -> Floats:
    """(N, C) float32 logits: `store.pooling.pool_map` of each whole image, by one sum for all.

    Args:
        maps: of N images.
        num_classes: C.
        fill: the logit of classes outside a cell's top K.

    Raises:
        LabelMapError: a fill that needs a tail where there is none.
    """
    scores = maps.scores.astype(np.float32)
    n, _, h, w = scores.shape
    fill_NHW = fill_logits(scores, num_classes, fill, maps.tail)
    weights_HW = np.outer(axis_weights(0, 1, h)[0], axis_weights(0, 1, w)[0])
    index = np.arange(n)[:, None, None, None] * num_classes + maps.classes
    added = (scores - fill_NHW[:, None]) * weights_HW
    pooled = np.bincount(index.reshape(-1), weights=added.reshape(-1), minlength=n * num_classes)
    logits: Floats = pooled.astype(np.float32).reshape(n, num_classes)
    logits += (fill_NHW * weights_HW).sum(axis=(1, 2))[:, None]
    return logits


def softmax_entropy(logits_NC: Floats) -> tuple[Floats, Floats]:
    """(N, C) probabilities and (N,) their entropy in bits; the logits are overwritten."""
    logits_NC -= logits_NC.max(axis=1, keepdims=True)
    exponentials = np.exp(logits_NC)
    total = exponentials.sum(axis=1)
    # log Z - E[logit], both relative to the largest logit.
    nats = np.log(total) - np.einsum("nc,nc->n", exponentials, logits_NC) / total
    exponentials /= total[:, None]
    return exponentials, np.maximum(nats, 0) / np.log(2, dtype=np.float32)


def labels_lead(maps: LabelRows, targets_N: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(N,) whether an image's original label is the first class of any of its cells."""
    leads: NDArray[np.bool_] = (maps.classes[:, 0] == targets_N[:, None, None]).any(axis=(1, 2))
    return leads


def present_classes(
    maps: LabelRows, *, threshold: float, cells: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Row and class of every class that is present in an image, each once, in rising order.

    Args:
        maps: of N images.
        threshold: what leads in a cell with this probability, exact where there is a tail, counts there.
        cells: in how many cells it must.
    """
    first = maps.classes[:, 0].reshape(len(maps.classes), -1).astype(np.int32)
    sure = cell_confidence(maps.scores, maps.tail).reshape(first.shape) >= threshold
    return _runs(np.where(sure, first, -1), cells)


def _runs(present: NDArray[np.int32], cells: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Row and class of every class that a row holds `cells` times or more, each once; -1 is none."""
    ordered = np.sort(present, axis=1)
    starts = ordered[:, : ordered.shape[1] - cells + 1]
    found = (starts >= 0) & (starts == ordered[:, cells - 1 :])
    found[:, 1:] &= starts[:, 1:] != starts[:, :-1]
    rows, columns = np.nonzero(found)
    return rows, starts[rows, columns]
