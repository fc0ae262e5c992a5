"""What the student is trained on: the kinds of the paper's ablation (ReLabel, CVPR 2021, section 4.1).

Shapes: B batch, K ranks, C classes, H W cells (y, x).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from store.maps.types import Fill, TargetKind
from trainer.targets.pooling import pool_logits


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelBatch:
    """What is known of a batch's labels."""

    classes: Tensor  # (B, K, H, W) integer class ids
    scores: Tensor  # (B, K, H, W) logits
    tail_logsumexp: Tensor | None  # (B, H, W) log-sum-exp of the logits outside the top K
    boxes: Tensor  # (B, 4) float32, the crops by their whole images
    labels: Tensor  # (B,) int64, the dataset's own labels; read only where they are needed


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetMaker:
    """Makes soft targets whose rows sum to 1."""

    kind: TargetKind
    num_classes: int  # C
    fill: Fill
    original_weight: float  # share of the original label mixed in
    label_smoothing: float  # of the original label

    def __call__(self, batch: LabelBatch) -> Tensor:
        """(B, C) float32 targets."""
        if self.kind == "original":
            return self._label_target(batch.labels)
        targets_BC = self._relabel(batch)
        if self.original_weight == 0:
            return targets_BC
        return torch.lerp(targets_BC, self._label_target(batch.labels), self.original_weight)

    def _relabel(self, batch: LabelBatch) -> Tensor:
        whole_B4 = torch.zeros_like(batch.boxes)
        whole_B4[:, 2:] = 1
        local = self.kind in ("relabel", "local-single")
        logits_BC = pool_logits(
            batch.classes,
            batch.scores,
            batch.boxes if local else whole_B4,
            num_classes=self.num_classes,
            fill=self.fill,
            tail_logsumexp_BHW=batch.tail_logsumexp,
        )
        if self.kind in ("relabel", "global"):
            return logits_BC.softmax(1)
        return one_hot(logits_BC.argmax(1), self.num_classes)

    def _label_target(self, labels_B: Tensor) -> Tensor:
        spread = self.label_smoothing / self.num_classes
        return one_hot(labels_B, self.num_classes) * (1 - self.label_smoothing) + spread


def one_hot(classes_B: Tensor, num_classes: int) -> Tensor:
    """(B, C) float32; unlike `F.one_hot` it never waits for the device."""
    return torch.zeros(len(classes_B), num_classes, device=classes_B.device).scatter_(1, classes_B[:, None], 1.0)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all rows of the cross-entropy with soft targets, a float32 scalar; (B, C) or, for tokens, (B, T, C)."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(-1).mean()
