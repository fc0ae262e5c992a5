"""Plain knowledge distillation: the teacher sees every crop of every epoch, where ReLabel looks its map up.

Shapes: B batch, C classes, S side of a crop.
"""

import torch
from torch import Tensor

from pipelines.digits.teacher import load_teacher, normalise
from trainer.batch import Batch
from trainer.own_targets import OwnTargets


def distilled_targets() -> OwnTargets:
    """The softmax of the demo's teacher's logits for each crop, without a temperature."""
    teacher = load_teacher().to(memory_format=torch.channels_last)

    @torch.no_grad()  # inference mode would make targets that the loss cannot keep
    def make(batch: Batch) -> Tensor:
        logits_BC: Tensor = teacher(normalise(batch.images))
        return logits_BC.softmax(1)

    return OwnTargets(name="the demo's teacher on every crop", make=make)
