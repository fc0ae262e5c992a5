"""Checks of label maps and samples against the format, for writers, readers and `relabel-store verify`.

Each check returns None or a problem: the array's name and a sentence about it.

Letters: N rows, K kept classes, C classes, H W cells (y, x).
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from store.format.arrays import LENGTH_BYTES, MAX_KEY_BYTES, MAX_KEYS_BYTES, NO_CLASS
from store.format.schema import MAX_ROWS, StoreSchema

Problem = tuple[str, str]
T = TypeVar("T", bound=np.generic)
# Bit patterns of float16.
NO_SIGN, INFINITE, MINUS_INFINITE = 0x7FFF, 0x7C00, 0xFC00


def check_maps(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], tail_logsumexp: NDArray[np.float16] | None,
    usable: NDArray[np.bool_], *, num_classes: int,
) -> Problem | None:  # fmt: skip
    """Check usable rows for class ids below C, finite scores and a finite tail; cheap enough for every read.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        tail_logsumexp: (N, H, W) float16; -inf where K = C.
        usable: (N,) bool, false for undecodable rows.
        num_classes: C.
    """
    classes, scores = _kept(classes, usable), _kept(scores, usable)
    if classes.size and classes.max() >= num_classes:
        return "classes", f"class id {classes.max()} of {num_classes} classes"
    # By bits: np.isfinite takes twenty times as long on float16.
    if scores.size and (scores.view(np.uint16) & NO_SIGN).max() >= INFINITE:
        return "scores", "scores that are not finite"
    if tail_logsumexp is not None and tail_logsumexp.size:
        patterns = _kept(tail_logsumexp, usable).view(np.uint16)
        has_all = classes.shape[1] == num_classes  # nothing is outside the top K
        if ((patterns & NO_SIGN) >= INFINITE).any() and not (has_all and (patterns == MINUS_INFINITE).all()):
            return "tail", "a tail that is not a finite number"
    return None


def check_topk_order(
    classes: NDArray[np.uint16], scores: NDArray[np.float16], tail_logsumexp: NDArray[np.float16] | None,
    usable: NDArray[np.bool_],
) -> Problem | None:  # fmt: skip
    """Check that scores descend along K, no class is twice in a cell, and undecodable rows hold fill values.

    Args:
        classes: (N, K, H, W) uint16.
        scores: (N, K, H, W) float16, logits.
        tail_logsumexp: (N, H, W) float16.
        usable: (N,) bool, false for undecodable rows.
    """
    kept = _kept(scores, usable)
    if (kept[:, :-1] < kept[:, 1:]).any():
        return "scores", "scores that do not descend along K"
    ascending = np.sort(_kept(classes, usable), axis=1)
    if (ascending[:, :-1] == ascending[:, 1:]).any():
        return "classes", "a class twice in one cell"
    fills = [("classes", classes[~usable] == NO_CLASS), ("scores", np.isnan(scores[~usable]))]
    if tail_logsumexp is not None:
        fills.append(("tail", np.isnan(tail_logsumexp[~usable])))
    for name, is_fill in fills:
        if not is_fill.all():
            return name, "values in an undecodable row"
    return None


def check_centred(scores: NDArray[np.float16], usable: NDArray[np.bool_], schema: StoreSchema) -> Problem | None:
    """Check that no centred score is below 0, the mean of the logits that are lower than it.

    Args:
        scores: (N, K, H, W) float16.
        usable: (N,) bool, false for undecodable rows.
        schema: of the store.
    """
    if schema.score_kind != "centred_logit" or schema.top_k == schema.num_classes:
        return None
    return ("scores", "centred scores below 0") if (_kept(scores, usable)[:, -1] < 0).any() else None


def check_samples(
    keys: Sequence[str],
    offsets: NDArray[np.uint64],
    labels: NDArray[np.int32],
    undecodable: Mapping[int, str],
    *,
    tar_size: int,
) -> Problem | None:
    """Check that keys differ and are not empty, images are within their tar, labels are at least -1, row and key agree.

    Args:
        keys: N texts, by row.
        offsets: (N, 2) uint64, byte offset and length.
        labels: (N,) int32.
        undecodable: keys of the undecodable rows, by row.
        tar_size: bytes of the tar.
    """
    if len(keys) > MAX_ROWS:
        return "keys", f"{len(keys):,} rows; a group holds at most {MAX_ROWS:,}"
    if len(set(keys)) != len(keys) or "" in keys:
        return "keys", "keys that are empty or come twice"
    sizes = [len(key.encode("utf-8", "surrogatepass")) for key in keys]
    if max(sizes, default=0) > MAX_KEY_BYTES or sum(sizes) + LENGTH_BYTES * (1 + len(keys)) > MAX_KEYS_BYTES:
        return "keys", f"keys of more than {MAX_KEY_BYTES:,} bytes each or {MAX_KEYS_BYTES:,} together"
    if any(keys[row] != key for row, key in undecodable.items()):
        return "keys", "undecodable rows of other keys"
    # As Python integers, which do not overflow.
    if any(offset + length > tar_size for offset, length in offsets.tolist()):
        return "offsets", "images beyond the end of their tar"
    if (labels < -1).any():
        return "targets", "labels below -1"
    return None


def _kept(values: NDArray[T], usable: NDArray[np.bool_]) -> NDArray[T]:
    return values if usable.all() else values[usable]
