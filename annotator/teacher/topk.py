"""The top K logits of every cell, less the mean of the others. Pure tensor functions.

Shape letters: B batch, K kept classes, C classes, H W cells (y, x).
"""

from torch import Tensor

FLOAT16_MAX = 65_504.0


def keep_top_k(logits_BHWC: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the K highest logits of every cell, and the log-sum-exp of the others, all less the mean of the others.

    A class that is not kept then counts as 0 when maps are pooled. This suits logits with any centre:
    softmax ignores a shift of all classes, and pooling is linear, so the sum of the pooled logits is right. Where every
    class is kept there are no others, and the logits stay as they are.

    Args:
        logits_BHWC: (B, H, W, C) float32.
        top_k: K, at most C.

    Returns:
        classes: (B, K, H, W) int64, k = 0 the highest.
        scores: (B, K, H, W) float32, at least 0 and descending along K; not finite where logits are not.
        tail_logsumexp: (B, H, W) float32, log-sum-exp of the logits that were not kept, less their mean; -inf if all
            were kept.
    """
    scores_BHWK, classes_BHWK = logits_BHWC.topk(top_k, dim=-1)
    others_BHWC = logits_BHWC.scatter(-1, classes_BHWK, float("-inf"))
    tail_logsumexp_BHW = others_BHWC.logsumexp(dim=-1)
    if (others := logits_BHWC.shape[-1] - top_k) > 0:
        centre_BHW1 = logits_BHWC.scatter(-1, classes_BHWK, 0.0).sum(dim=-1, keepdim=True) / others
        # Rounding may put the mean of equal logits above them.
        scores_BHWK = (scores_BHWK - centre_BHW1).clamp(min=0)
        tail_logsumexp_BHW = tail_logsumexp_BHW - centre_BHW1[..., 0]
    return classes_BHWK.permute(0, 3, 1, 2), scores_BHWK.permute(0, 3, 1, 2), tail_logsumexp_BHW


def fits_float16(scores: Tensor) -> Tensor:
    """() bool: whether every score is finite, and finite in the store's float16."""
    return (scores.abs() <= FLOAT16_MAX).all()
