"""Soft training targets: the kinds of the paper's ablation (ReLabel, CVPR 2021, section 4.1).

Shapes: B batch, K kept classes of a cell, C classes, H W cells (y, x), T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from store.maps.types import TargetKind
from trainer.targets.pooling import pool_logits


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelBatch:
    """The label maps, crops' boxes and labels of a batch."""

    classes: Tensor  # (B, K, H, W) integer class ids
    scores: Tensor  # (B, K, H, W)
    boxes: Tensor  # (B, 4) float32: x1, y1, x2, y2 of the crops, normalised by the whole images
    labels: Tensor  # (B,) int64, the dataset's own labels, -1 where there is none; needed for some kinds only


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetMaker:
    """Makes soft targets; see docs/pooling.md for the kinds."""

    kind: TargetKind
    num_classes: int  # C
    temperature: float  # divides pooled logits before softmax
    original_weight: float  # weight of the dataset's label in the target, 0 to 1
    label_smoothing: float  # of the dataset's label

    def __call__(self, batch: LabelBatch) -> Tensor:
        """Make a batch's targets: (B, C) float32, whose rows sum to 1."""
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
        )
        if self.kind in ("relabel", "global"):
            return (logits_BC / self.temperature).softmax(1)
        return one_hot(logits_BC.argmax(1), self.num_classes)

    def _label_target(self, labels_B: Tensor) -> Tensor:
        spread = self.label_smoothing / self.num_classes
        return one_hot(labels_B, self.num_classes) * (1 - self.label_smoothing) + spread


def one_hot(classes_B: Tensor, num_classes: int) -> Tensor:
    """(B, C) float32 one-hot rows; unlike `F.one_hot` it never waits for the device."""
    return torch.zeros(len(classes_B), num_classes, device=classes_B.device).scatter_(1, classes_B[:, None], 1.0)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy with soft targets over all rows: a float32 scalar, from (B, C) or (B, T, C) arguments."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(-1).mean()
