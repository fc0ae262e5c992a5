"""The top K logits of every cell. Pure tensor functions.

Shape letters: B batch, K kept classes, C classes, H W cells (y, x).
"""

from torch import Tensor

FLOAT16_MAX = 65_504.0


def keep_top_k(logits_BHWC: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the K highest logits of every cell, and the log-sum-exp of the others.

    Args:
        logits_BHWC: (B, H, W, C) float32.
        top_k: K, at most C.

    Returns:
        classes: (B, K, H, W) int64, k = 0 the highest.
        scores: (B, K, H, W) float32, descending along K.
        tail_logsumexp: (B, H, W) float32, log-sum-exp of the logits that were not kept; -inf if all were.
    """
    scores_BHWK, classes_BHWK = logits_BHWC.topk(top_k, dim=-1)
    others_BHWC = logits_BHWC.scatter(-1, classes_BHWK, float("-inf"))
    tail_logsumexp_BHW = others_BHWC.logsumexp(dim=-1)
    return classes_BHWK.permute(0, 3, 1, 2), scores_BHWK.permute(0, 3, 1, 2), tail_logsumexp_BHW


def fits_float16(scores: Tensor) -> Tensor:
    """() bool: whether every score is finite, and finite in the store's float16."""
    return (scores.abs() <= FLOAT16_MAX).all()
