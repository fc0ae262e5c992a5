"""What the students are trained on; all else is the recipe `demo`, the same for all.

Published figures: ReLabel (Yun et al., CVPR 2021), ResNet-50 on ImageNet, top-1 in percent, its tables of results and
of the ablation; `real` is the same student by the labels of ReaL, where the top-1 may be any class present.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipelines.digits.teacher import load_teacher, normalise
from pipelines.train.recipes import demo
from store.maps.types import TargetKind
from trainer.batch import Batch
from trainer.settings import TrainSettings
from trainer.targets.custom import CustomTargets


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One kind of training."""

    name: str  # of its folders
    title: str  # in tables
    target: TargetKind = "relabel"
    label_smoothing: float = 0.0  # of the original label
    cutmix_prob: float = 0.0
    distils: bool = False  # the teacher sees every crop; the target has no say then
    published: float | None = None
    published_real: float | None = None

    def settings(self, seed: int) -> TrainSettings:
        """Of one student."""
        return replace(
            demo(),
            target=self.target,
            label_smoothing=self.label_smoothing,
            cutmix_prob=self.cutmix_prob,
            seed=seed,
        )


ORIGINAL = Arm(name="original", title="original", target="original", published=77.5, published_real=83.6)
RELABEL = Arm(name="relabel", title="relabel", published=78.9, published_real=85.0)
DISTILLED = Arm(name="distilled", title="distillation", distils=True)
ARMS = (
    ORIGINAL,
    Arm(
        name="smoothing",
        title="original + label smoothing",
        target="original",
        label_smoothing=0.1,
        published=78.0,
        published_real=84.0,
    ),
    Arm(name="global-single", title="global-single", target="global-single", published=77.5),
    Arm(name="local-single", title="local-single", target="local-single", published=78.4),
    Arm(name="global", title="global", target="global", published=78.5),
    RELABEL,
    Arm(name="relabel-cutmix", title="relabel + CutMix", cutmix_prob=1.0, published=80.2),
    DISTILLED,
)


# Plain knowledge distillation: the teacher sees every crop of every epoch, where ReLabel looks its map up.
#
# Shapes: B batch, C classes, S side of a crop.


def distilled_targets() -> CustomTargets:
    """The softmax of the demo's teacher's logits for each crop, without a temperature."""
    teacher = load_teacher().to(memory_format=torch.channels_last)

    @torch.no_grad()  # inference mode would make targets that the loss cannot keep
    def make(batch: Batch) -> Tensor:
        logits_BC: Tensor = teacher(normalise(batch.images))
        return logits_BC.softmax(1)

    return CustomTargets(name="the demo's teacher on every crop", make=make)
