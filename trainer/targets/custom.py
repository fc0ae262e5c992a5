"""A batch's targets: those of the settings, or a caller's own, such as a teacher's that sees every crop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.batch import Batch
from trainer.settings import TrainSettings
from trainer.targets.targets import LabelBatch, TargetMaker

ROUNDING = 1e-2  # of a row's sum, for teachers that compute with few bits

MakeTargets = Callable[[Batch], Tensor]
"""From a batch, before flips and mixing, to (B, C) float32 targets on its device, whose rows sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CustomTargets:
    """What to train on in place of the settings' targets.

    The settings then decide only what is read: `target` whether original labels are needed, `fill` whether tails are.
    """

    name: str  # kept with the run, which goes on only with targets of the same name
    make: MakeTargets  # called on a small blank batch first, before training


def checked_targets(own: CustomTargets, num_classes: int) -> MakeTargets:
    """Makes a caller's own targets and checks them, which waits for the device once a batch."""

    def make(batch: Batch) -> Tensor:
        try:
            targets_BC = own.make(batch)
        except Exception as error:  # whatever a caller's own function raises
            raise SettingsError(f"the targets {brief(own.name)} cannot be made: {first_line(error)}") from error
        expected = (len(batch.images), num_classes)
        if not isinstance(targets_BC, Tensor) or targets_BC.shape != expected or targets_BC.dtype != torch.float32:
            found = (
                f"{tuple(targets_BC.shape)} {targets_BC.dtype}"
                if isinstance(targets_BC, Tensor)
                else type(targets_BC).__name__
            )
            raise SettingsError(f"the targets {brief(own.name)}: expected {expected} torch.float32, found {found}")
        if not bool(((targets_BC >= 0).all(1) & ((targets_BC.sum(1) - 1).abs() < ROUNDING)).all()):
            raise SettingsError(f"the targets {brief(own.name)}: expected rows of numbers from 0 up that sum to 1")
        return targets_BC

    return make


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
                tail_logsumexp=batch.tail_logsumexp,
                boxes=batch.boxes,
                labels=batch.labels,
            )
        )

    return make
