"""Exact counts of hits, added up batch by batch and then over all ranks.

Shapes: B batch, C classes, L labels that occur (0 to the highest).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.distributed import Ranks
from trainer.reallabels import RealLabels, val_number

BEST = 5  # top-5: among the five highest logits, or all if there are fewer classes


class Tally:
    """Samples, top-1 hits and top-5 hits of each label; and by ReaL labels, samples that have some and top-1 hits."""

    def __init__(self, num_labels: int, real: RealLabels | None = None) -> None:
        # One tensor, so that the ranks add up everything at once; the others are views of it.
        self._counts = torch.zeros(num_labels * 3 + 2, dtype=torch.int64)
        self.per_class_L3 = self._counts[:-2].view(num_labels, 3)
        self.real_2 = self._counts[-2:]
        self._real = real

    def add(self, keys: Sequence[str], originals_B: Tensor, logits_BC: Tensor) -> None:
        """Count a batch.

        Args:
            keys: the samples' keys; looked at only with ReaL labels.
            originals_B: int64, the dataset's own labels, each below `num_labels`.
            logits_BC: float32, on the CPU.
        """
        best_BK = logits_BC.topk(min(BEST, logits_BC.shape[1]), dim=1).indices
        hits_BK = best_BK == originals_B[:, None]
        ones_B = torch.ones_like(originals_B)
        counted_B3 = torch.stack([ones_B, hits_BK[:, 0].long(), hits_BK.any(1).long()], dim=1)
        self.per_class_L3.index_add_(0, originals_B, counted_B3)
        if self._real is not None:
            labels_B = [self._real[val_number(key) - 1] for key in keys]
            hits = sum(best in labels for best, labels in zip(best_BK[:, 0].tolist(), labels_B, strict=True))
            self.real_2 += torch.tensor([sum(map(bool, labels_B)), hits])

    def join(self, ranks: Ranks) -> None:
        """Make this the tally of all ranks; each of them calls it once."""
        ranks.sum(self._counts)

    def total(self) -> tuple[int, int, int]:
        """Samples, top-1 hits, top-5 hits."""
        samples, top1_hits, top5_hits = self.per_class_L3.sum(0).tolist()
        return samples, top1_hits, top5_hits
