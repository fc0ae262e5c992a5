"""What the labels of a store say as a whole: classes seen, entropy, images with several classes.

Letters: N rows, K ranks, C classes, H W cells (y, x).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.format.arrays import CHUNK_ROWS
from store.format.schema import StoreSchema
from store.group import LabelGroup
from store.maps.pooling import axis_weights, cell_confidence, fill_logits
from store.maps.types import Fill, LabelRows

ROWS_AT_ONCE = 4 * CHUNK_ROWS  # bounds the dense (rows, C) logits
MOST_SEEN = 10
SHOWN_COUNTS = 4  # images with 0, 1, 2, and 3 or more classes


@dataclass(kw_only=True, slots=True)
class StoreStats:
    """Sums over the groups added so far; quarantined rows are left out."""

    num_classes: int
    threshold: float  # probability that makes a class present in a cell
    rows: int = 0
    labelled: int = 0  # rows with an original label
    label_leads: int = 0  # of these, those in whose map it is the first class of some cell
    classes_per_image: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SHOWN_COUNTS, np.int64))
    images_of_class: NDArray[np.int64] = field(init=False)  # (C,) images in which the class is present
    leading_cells: NDArray[np.int64] = field(init=False)  # (C,) cells in which the class is first
    # Bits, of every image's pooled target, by the logit given to classes outside the top K.
    entropies: dict[Fill, list[NDArray[np.float32]]] = field(default_factory=lambda: {"zero": [], "tail": []})

    def __post_init__(self) -> None:
        self.images_of_class = np.zeros(self.num_classes, np.int64)
        self.leading_cells = np.zeros(self.num_classes, np.int64)

    def add(self, group: LabelGroup) -> None:
        """Count a group's rows.

        Raises:
            DamagedStoreError: its labels cannot be read.
        """
        for maps, targets_N in _usable_maps(group):
            self.labelled += int((targets_N >= 0).sum())
            self.label_leads += int(labels_lead(maps, targets_N).sum())
            first = maps.classes[:, 0].reshape(len(maps.classes), -1).astype(np.int64)
            rows, classes = present_classes(maps, threshold=self.threshold)
            counts = np.minimum(np.bincount(rows, minlength=len(first)), SHOWN_COUNTS - 1)
            self.rows += len(first)
            self.classes_per_image += np.bincount(counts, minlength=SHOWN_COUNTS)
            self.images_of_class += np.bincount(classes, minlength=self.num_classes)
            self.leading_cells += np.bincount(first.reshape(-1), minlength=self.num_classes)
            fills: tuple[Fill, ...] = ("zero",) if maps.tail_logsumexp is None else ("zero", "tail")
            for fill in fills:
                logits_NC = pool_whole(maps, num_classes=self.num_classes, fill=fill)
                self.entropies[fill].append(softmax_entropy(logits_NC)[1])

    def to_json(self, schema: StoreSchema) -> dict[str, Any]:
        """The statistics as plain values; entropy in bits, by fill."""
        most = np.argsort(-self.images_of_class, kind="stable")[:MOST_SEEN]
        return {
            "images": self.rows,
            "threshold": self.threshold,
            "labelled": self.labelled,
            "label_leads": self.label_leads,
            "classes_seen": int((self.leading_cells > 0).sum()),
            "classes_never_seen": np.flatnonzero(self.leading_cells == 0).tolist(),
            "images_with_classes": self.classes_per_image.tolist(),
            "several_classes": int(self.classes_per_image[2:].sum()),
            "uniform_bits": float(np.log2(self.num_classes)),  # no target has more
            "entropy_bits": {fill: _spread(np.concatenate(parts)) for fill, parts in self.entropies.items() if parts},
            "most_seen": [
                {"class": c, "name": schema.class_name(c), "images": int(self.images_of_class[c])}
                for c in most.tolist()
            ],
        }  # fmt: skip


def _spread(values: NDArray[np.float32]) -> dict[str, float]:
    return {"mean": float(values.mean()), **{f"p{q}": float(np.percentile(values, q)) for q in (5, 50, 95)}}


def _usable_maps(group: LabelGroup) -> Iterator[tuple[LabelRows, NDArray[np.int32]]]:
    """Label maps and original labels of rows that are not quarantined, some at a time."""
    for start in range(0, len(group), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(group))
        maps, usable = group.read(start, stop), group.usable(start, stop)
        if usable.any():
            kept = LabelRows(
                classes=maps.classes[usable],
                scores=maps.scores[usable],
                tail_logsumexp=None if maps.tail_logsumexp is None else maps.tail_logsumexp[usable],
            )
            yield kept, group.labels[start:stop][usable]


# What the label maps of many images say of each of them as a whole.
#
# Letters: N images, K ranks, C classes, H W cells (y, x), P pairs of an image and a class that is present in it.


Floats = NDArray[np.float32]


def pool_whole(maps: LabelRows, *, num_classes: int, fill: Fill) -> Floats:
    """(N, C) float32 logits: `store.maps.pooling.pool_map` of each whole image, by one sum for all.

    Args:
        maps: of N images.
        num_classes: C.
        fill: the logit of classes outside a cell's top K.

    Raises:
        LabelMapError: a fill that needs a tail where there is none.
    """
    scores = maps.scores.astype(np.float32)
    n, _, h, w = scores.shape
    fill_NHW = fill_logits(scores, num_classes, fill, maps.tail_logsumexp)
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
    sure = cell_confidence(maps.scores, maps.tail_logsumexp).reshape(first.shape) >= threshold
    return _runs(np.where(sure, first, -1), cells)


def _runs(present: NDArray[np.int32], cells: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Row and class of every class that a row holds `cells` times or more, each once; -1 is none."""
    ordered = np.sort(present, axis=1)
    starts = ordered[:, : ordered.shape[1] - cells + 1]
    found = (starts >= 0) & (starts == ordered[:, cells - 1 :])
    found[:, 1:] &= starts[:, 1:] != starts[:, :-1]
    rows, columns = np.nonzero(found)
    return rows, starts[rows, columns]
