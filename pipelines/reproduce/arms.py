"""The arms of the ablation: the target that each kind of student is trained on, and its published accuracy.

Everything else is the recipe `demo`, the same for all arms. Published: ReLabel (Yun et al., CVPR 2021), ResNet-50 on
ImageNet, top-1 in percent, from its tables of results and of the ablation; `published_real` is the accuracy by ReaL's
labels, where the top-1 may be any class present.

Shapes: B batch, C classes.
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

    name: str  # in the names of folders
    title: str  # in tables
    target: TargetKind = "relabel"
    label_smoothing: float = 0.0  # of the dataset's label
    cutmix_prob: float = 0.0
    distils: bool = False  # the teacher is run on every crop, and `target` is not used
    published: float | None = None
    published_real: float | None = None

    def settings(self, seed: int) -> TrainSettings:
        """The settings of one student."""
        return replace(
            demo(),
            target=self.target,
            label_smoothing=self.label_smoothing,
            cutmix_prob=self.cutmix_prob,
            seed=seed,
        )

    def custom_targets(self) -> CustomTargets | None:
        """The targets that replace the settings' `target`; None where they do not."""
        return distilled_targets() if self.distils else None


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


def distilled_targets() -> CustomTargets:
    """Plain knowledge distillation: the softmax of the demo's teacher's logits for each crop, without a temperature."""
    teacher = load_teacher().to(memory_format=torch.channels_last)

    @torch.no_grad()  # not inference mode, whose tensors autograd refuses to save for the loss's backward pass
    def make(batch: Batch) -> Tensor:
        logits_BC: Tensor = teacher(normalise(batch.images))
        return logits_BC.softmax(1)

    return CustomTargets(name="the demo's teacher on every crop", make=make)
