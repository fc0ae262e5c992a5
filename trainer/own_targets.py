"""A batch's targets: those of the settings, or a caller's own, such as a teacher's that sees every crop."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainer.batch import Batch
from trainer.settings import TrainSettings
from trainer.targets import LabelBatch, TargetMaker

MakeTargets = Callable[[Batch], Tensor]
"""From a batch, before flips and mixing, to (B, C) float32 targets on its device, whose rows sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OwnTargets:
    """What to train on in place of the settings' targets.

    The settings then decide only what is read: `target` whether original labels are needed, `fill` whether tails are.
    """

    name: str  # kept with the run, which goes on only with targets of the same name
    make: MakeTargets


def settings_targets(settings: TrainSettings, num_classes: int) -> MakeTargets:
    """Makes targets as the settings say."""
    maker = TargetMaker(
        kind=settings.target,
        num_classes=num_classes,
        fill=settings.fill,
        original_weight=settings.original_weight,
        label_smoothing=settings.label_smoothing,
    )

    def make(batch: Batch) -> Tensor:
        return maker(
            LabelBatch(
                classes=batch.classes,
                scores=batch.scores,
                tail=batch.tail,
                boxes=batch.boxes,
                originals=batch.originals,
            )
        )

    return make
