"""Figures of each image of a label group: the label's probability, top-1 class, entropy, classes present.

A group is read in blocks, so that memory is bounded.
Shape letters: N images, K top-k, C classes, H W cells (y, x), P pairs of an image and a class that is present in it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.errors import LabelMapError
from store.format.arrays import CHUNK_ROWS
from store.group import LabelGroup
from store.maps.pooling import is_class
from store.maps.statistics import (
    labels_top1,
    not_positive,
    pool_whole,
    present_classes,
    softmax_entropy,
    top1_classes,
)
from store.maps.types import LabelRows

Floats = NDArray[np.float32]
# The share of an image's cells, and the probability in each of them, that make a class present. A single cell is
# often confident of a class that is not in the image: docs/audit.md has precision and recall.
PRESENT_AREA, PRESENT_PROBABILITY = 0.02, 0.9
READ_ROWS = 4 * CHUNK_ROWS
BLOCK_ROWS = CHUNK_ROWS  # fits the processor's cache: several times faster than 256


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """Settings of an audit.

    Raises:
        LabelMapError: a temperature that is not above 0, a threshold outside [0, 1], or a negative number of rows.
    """

    temperature: float = 1.0  # divides pooled logits before softmax
    threshold: float = PRESENT_PROBABILITY  # least probability of a top-1 class that counts as present
    top: int = 10  # images and classes listed

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.threshold <= 1 or self.top < 0:
            raise LabelMapError(f"threshold {self.threshold}, top {self.top}: expected 0 to 1, and 0 or more")
        if not 0 < self.temperature < math.inf:
            raise LabelMapError(f"temperature {self.temperature}: expected a number above 0")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageFigures:
    """Figures of N images; the probabilities of a label are NaN where there is none."""

    label_whole: Floats  # (N,) probability of the label, pooled over the whole image
    label_best: Floats  # (N,) probability of the label in the cell where it is highest
    label_top1: NDArray[np.bool_]  # (N,) whether the label is top-1 in at least one cell
    top: NDArray[np.int32]  # (N,) top-1 class of the whole image's target
    top_probability: Floats  # (N,)
    entropy: Floats  # (N,) bits, of the whole image's target
    present_rows: NDArray[np.int64]  # (P,) rising
    present: NDArray[np.int32]  # (P,) classes, rising within a row
    not_positive: Floats  # (N,) share of the cells in which no score is above 0
    seen: NDArray[np.bool_]  # (C,) whether the class is top-1 in any cell of any of the images

    @property
    def classes(self) -> NDArray[np.int16]:
        """(N,) number of classes present."""
        return np.bincount(self.present_rows, minlength=len(self.top)).astype(np.int16)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupAudit:
    """The usable rows of a group with their figures."""

    name: str
    rows: NDArray[np.int32]  # (N,) in the group
    keys: list[str]  # N
    labels: NDArray[np.int32]  # (N,)
    figures: ImageFigures  # of N images


def audit_group(group: LabelGroup, settings: AuditSettings) -> GroupAudit:
    """Read a group and compute its figures; undecodable rows are left out.

    Raises:
        DamagedStoreError: its labels cannot be read.
        StoreReadError: the disk or network failed.
    """
    usable, labels, keys = group.usable(), group.labels, group.keys
    rows = np.flatnonzero(usable).astype(np.int32)
    parts = [
        image_figures(
            maps,
            block_labels,
            num_classes=group.schema.num_classes,
            temperature=settings.temperature,
            threshold=settings.threshold,
        )
        for maps, block_labels in _blocks(group, usable, labels)
    ]
    kept = [keys[row] for row in rows.tolist()]
    return GroupAudit(name=group.name, rows=rows, keys=kept, labels=labels[rows], figures=_join(parts))


def image_figures(
    maps: LabelRows, labels: NDArray[np.int32], *, num_classes: int, temperature: float, threshold: float
) -> ImageFigures:
    """The figures of label maps, none of them undecodable.

    Args:
        maps: label maps of N images.
        labels: (N,) the dataset's labels; a number outside [0, C) counts as no label.
        num_classes: C.
        temperature: divides the logits, pooled or of a cell, before softmax.
        threshold: a class is present if it is top-1 with this probability in `present_cells` cells.
    """
    logits_NC = pool_whole(maps, num_classes=num_classes) / np.float32(temperature)
    probabilities, entropy = softmax_entropy(logits_NC)
    rows = np.flatnonzero(is_class(labels, num_classes))
    label_whole, label_best = np.full((2, len(labels)), np.nan, np.float32)
    label_whole[rows] = probabilities[rows, labels[rows]]
    label_best[rows] = class_cells(maps, labels, num_classes, temperature).max(axis=(1, 2))[rows]
    top = probabilities.argmax(axis=1)
    cells = present_cells(maps.scores.shape[2:])
    present_rows, present = present_classes(maps, threshold=threshold, cells=cells)
    return ImageFigures(
        label_whole=label_whole,
        label_best=label_best,
        label_top1=labels_top1(maps, labels),
        top=top.astype(np.int32),
        top_probability=np.take_along_axis(probabilities, top[:, None], axis=1)[:, 0],
        entropy=entropy,
        present_rows=present_rows,
        present=present,
        not_positive=not_positive(maps, num_classes=num_classes),
        seen=top1_classes(maps, num_classes=num_classes),
    )


def present_cells(map_size: tuple[int, ...]) -> int:
    """The number of cells in which a class must be top-1 to be present in the image."""
    return max(math.ceil(PRESENT_AREA * math.prod(map_size)), 1)


def class_cells(maps: LabelRows, labels: NDArray[np.int32], num_classes: int, temperature: float) -> Floats:
    """(N, H, W) the probability that each cell gives to one class of each image, such as its label."""
    scores = maps.scores.astype(np.float32) / np.float32(temperature)
    others_count = num_classes - scores.shape[1]
    # Relative to each cell's largest logit, which may be the 0 of a class that is not kept.
    largest = np.maximum(scores[:, 0], 0) if others_count else scores[:, 0]
    others = np.exp(-largest) if others_count else np.zeros_like(largest)
    total = np.exp(scores - largest[:, None]).sum(axis=1) + others_count * others
    label = others
    rows, ks, ys, xs = np.nonzero(maps.classes == labels[:, None, None, None])
    label[rows, ys, xs] = np.exp(scores[rows, ks, ys, xs] - largest[rows, ys, xs])
    return np.asarray(label / total, np.float32)


def _blocks(
    group: LabelGroup, usable: NDArray[np.bool_], labels: NDArray[np.int32]
) -> Iterator[tuple[LabelRows, NDArray[np.int32]]]:
    """Label maps and labels of the usable rows, block by block; at least one block, which may be empty."""
    for start in range(0, max(len(group), 1), READ_ROWS):
        maps = group.read(start, min(start + READ_ROWS, len(group)))
        found = np.flatnonzero(usable[start : start + READ_ROWS])
        for first in range(0, max(len(found), 1), BLOCK_ROWS):
            rows = found[first : first + BLOCK_ROWS]
            yield maps.select(rows), labels[start + rows]


def _join(parts: list[ImageFigures]) -> ImageFigures:
    first_rows = np.cumsum([0, *(len(part.top) for part in parts)])
    return ImageFigures(
        label_whole=np.concatenate([part.label_whole for part in parts]),
        label_best=np.concatenate([part.label_best for part in parts]),
        label_top1=np.concatenate([part.label_top1 for part in parts]),
        top=np.concatenate([part.top for part in parts]),
        top_probability=np.concatenate([part.top_probability for part in parts]),
        entropy=np.concatenate([part.entropy for part in parts]),
        present_rows=np.concatenate([part.present_rows + i for part, i in zip(parts, first_rows, strict=False)]),
        present=np.concatenate([part.present for part in parts]),
        not_positive=np.concatenate([part.not_positive for part in parts]),
        seen=np.logical_or.reduce([part.seen for part in parts]),
    )
