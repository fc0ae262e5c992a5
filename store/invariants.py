"""What every label map holds to, checked by writers, by readers and by `relabel-store verify`.

Letters: N rows, K ranks, C classes, H W cells (y, x). A problem is the array's name and what is wrong with it.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from store.layout import NO_CLASS

Problem = tuple[str, str]
T = TypeVar("T", bound=np.generic)
INFINITE_BITS = 0x7C00


def check_maps(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], usable: NDArray[np.bool_], *, num_classes: int
) -> Problem | None:
    """Class ids below C and finite scores in usable rows; cheap enough for every read.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        usable: (N,) bool, false for quarantined rows.
        num_classes: C.
    """
    classes, scores = _kept(classes, usable), _kept(scores, usable)
    if classes.size and classes.max() >= num_classes:
        return "classes", f"class id {classes.max()} of {num_classes} classes"
    # A float16 without its sign is infinite or NaN from here on; np.isfinite takes twenty times as long.
    if scores.size and (scores.view(np.uint16) & 0x7FFF).max() >= INFINITE_BITS:
        return "scores", "scores that are not finite"
    return None


def check_ranks(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], tail: NDArray[np.float16] | None,
    usable: NDArray[np.bool_],
) -> Problem | None:  # fmt: skip
    """Scores descending along K, no class twice in a cell, a tail that is a number, fill values where quarantined.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        tail: (N, H, W) float16, -inf where no class is left.
        usable: (N,) bool, false for quarantined rows.
    """
    kept = _kept(scores, usable)
    if (kept[:, :-1] < kept[:, 1:]).any():
        return "scores", "scores that do not descend along K"
    ranked = np.sort(_kept(classes, usable), axis=1)
    if (ranked[:, :-1] == ranked[:, 1:]).any():
        return "classes", "a class twice in one cell"
    if tail is not None and (np.isnan(_kept(tail, usable)).any() or np.isposinf(tail).any()):
        return "tail", "a tail that is not a number"
    if (classes[~usable] != NO_CLASS).any() or not np.isnan(scores[~usable]).all():
        return "classes", "values in a quarantined row"
    return None


def _kept(values: NDArray[T], usable: NDArray[np.bool_]) -> NDArray[T]:
    return values if usable.all() else values[usable]
