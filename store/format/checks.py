"""What every label map holds to, checked by writers, by readers and by `relabel-store verify`.

Letters: N rows, K ranks, C classes, H W cells (y, x). A problem is the array's name and what is wrong with it.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from store.format.arrays import NO_CLASS

Problem = tuple[str, str]
T = TypeVar("T", bound=np.generic)
# Of a float16's bits.
NO_SIGN, INFINITE, MINUS_INFINITE = 0x7FFF, 0x7C00, 0xFC00


def check_maps(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], tail_logsumexp: NDArray[np.float16] | None,
    usable: NDArray[np.bool_], *, num_classes: int,
) -> Problem | None:  # fmt: skip
    """Class ids below C, finite scores, a tail that is a number, in usable rows; cheap enough for every read.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        tail_logsumexp: (N, H, W) float16; -inf where K = C.
        usable: (N,) bool, false for quarantined rows.
        num_classes: C.
    """
    classes, scores = _kept(classes, usable), _kept(scores, usable)
    if classes.size and classes.max() >= num_classes:
        return "classes", f"class id {classes.max()} of {num_classes} classes"
    # Bits are compared, since np.isfinite takes twenty times as long on float16.
    if scores.size and (scores.view(np.uint16) & NO_SIGN).max() >= INFINITE:
        return "scores", "scores that are not finite"
    if tail_logsumexp is not None and tail_logsumexp.size:
        bits = _kept(tail_logsumexp, usable).view(np.uint16)
        is_whole = classes.shape[1] == num_classes
        if ((bits & NO_SIGN) >= INFINITE).any() and not (is_whole and (bits == MINUS_INFINITE).all()):
            return "tail", "a tail that is not a finite number"
    return None


def check_ranks(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], tail_logsumexp: NDArray[np.float16] | None,
    usable: NDArray[np.bool_],
) -> Problem | None:  # fmt: skip
    """Scores descending along K, no class twice in a cell, fill values where quarantined.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        tail_logsumexp: (N, H, W) float16.
        usable: (N,) bool, false for quarantined rows.
    """
    kept = _kept(scores, usable)
    if (kept[:, :-1] < kept[:, 1:]).any():
        return "scores", "scores that do not descend along K"
    ranked = np.sort(_kept(classes, usable), axis=1)
    if (ranked[:, :-1] == ranked[:, 1:]).any():
        return "classes", "a class twice in one cell"
    fills = [("classes", classes[~usable] == NO_CLASS), ("scores", np.isnan(scores[~usable]))]
    if tail_logsumexp is not None:
        fills.append(("tail", np.isnan(tail_logsumexp[~usable])))
    for name, is_fill in fills:
        if not is_fill.all():
            return name, "values in a quarantined row"
    return None


def check_samples(
    keys: Sequence[str],
    offsets: NDArray[np.uint64],
    targets: NDArray[np.int32],
    undecodable: Mapping[int, str],
    *,
    tar_size: int,
) -> Problem | None:
    """Keys that differ and are not empty, images within their tar, labels from -1 on, quarantined rows of their keys.

    Args:
        keys: N texts.
        offsets: (N, 2) uint64, byte offset and length.
        targets: (N,) int32.
        undecodable: row to key.
        tar_size: bytes.
    """
    if len(set(keys)) != len(keys) or "" in keys:
        return "keys", "keys that are empty or come twice"
    if any(keys[row] != key for row, key in undecodable.items()):
        return "keys", "quarantined rows of other keys"
    # In Python's integers, which do not overflow.
    if any(offset + length > tar_size for offset, length in offsets.tolist()):
        return "offsets", "images beyond the end of their tar"
    if (targets < -1).any():
        return "targets", "labels below -1"
    return None


def _kept(values: NDArray[T], usable: NDArray[np.bool_]) -> NDArray[T]:
    return values if usable.all() else values[usable]
