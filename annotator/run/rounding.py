"""Rounding of scores to multiples of a step, for smaller stores, and what it changes in pooled probabilities.

Shape letters: B batch, N images measured, K kept classes, C classes, H W cells (y, x).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.report import Reporter
from store.format.schema import StoreSchema
from store.maps.statistics import pool_whole, softmax_entropy
from store.maps.types import LabelRows

Arrays = tuple[NDArray[Any], NDArray[np.float16], NDArray[np.float16]]
"""Classes and scores (B, K, H, W), and tails (B, H, W)."""

MEASURED_IMAGES = 1024  # of a run; with many classes the measurement takes longer than the rounding


class Rounding:
    """Rounds the scores and tails of batches, and reports the change that this makes in the first images' targets."""

    def __init__(self, schema: StoreSchema, step: float, reporter: Reporter) -> None:
        self.schema, self.step, self.reporter = schema, step, reporter
        self._left = MEASURED_IMAGES

    def __call__(self, maps: Arrays, usable: NDArray[np.bool_]) -> Arrays:
        """Round the scores and tails of a batch.

        Args:
            maps: of B images.
            usable: (B,) bool, the images that could be decoded.
        """
        classes, scores, tails = maps
        rounded = classes, round_to(scores, self.step), round_to(tails, self.step)
        measured = np.flatnonzero(usable)[: self._left]
        if len(measured):
            self._left -= len(measured)
            exact, changed = (LabelRows(classes=c, scores=s, tail_logsumexp=t) for c, s, t in (maps, rounded))
            self.reporter.rounded(self._changes(exact.select(measured), changed.select(measured)))
        return rounded

    def _changes(self, exact: LabelRows, rounded: LabelRows) -> NDArray[np.float32]:
        """(N,) the largest change of a probability in each whole image's target."""
        before_NC, after_NC = (
            softmax_entropy(pool_whole(maps, num_classes=self.schema.num_classes))[0] for maps in (exact, rounded)
        )
        changes: NDArray[np.float32] = np.abs(after_NC - before_NC).max(axis=1)
        return changes


def round_to(values: NDArray[np.float16], step: float) -> NDArray[np.float16]:
    """The nearest multiples of a power of two, of the same shape; exact in float16, which keeps order and signs."""
    return (np.round(values.astype(np.float32) / np.float32(step)) * np.float32(step)).astype(np.float16)
