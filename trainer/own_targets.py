"""Targets that a caller makes in place of the settings' kinds, such as those of a teacher that sees every crop."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainer.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OwnTargets:
    """What to train on; the settings' target, fill and smoothing then have no say. B batch, C classes."""

    name: str  # kept with the run, which goes on only with targets of the same name
    make: Callable[[Batch], Tensor]  # (B, C) float32, rows sum to 1, on the batch's device; before flips and mixing
