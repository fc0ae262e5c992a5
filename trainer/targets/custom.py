"""Functions that make a batch's targets: by the settings, or a caller's own such as a teacher applied to every crop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from store.errors import SettingsError
from store.text import brief, typed_line
from trainer.batch import Batch
from trainer.settings import TrainSettings
from trainer.targets.targets import TargetMaker

ROUNDING = 1e-2  # tolerance of a row's sum, for teachers that compute in half precision

MakeTargets = Callable[[Batch], Tensor]
"""From a batch, before flips and mixing, to (B, C) float32 targets on its device, whose rows sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CustomTargets:
    """A caller's targets in place of the settings' kind.

    The settings then decide only whether the dataset's labels are needed, by `target`.
    """

    name: str  # written to settings.json; a run resumes only with targets of the same name
    make: MakeTargets  # also called on a small blank batch before training


def checked_targets(custom: CustomTargets, num_classes: int) -> MakeTargets:
    """A function that makes a caller's targets and checks them, which waits for the device once a batch.

    The function raises SettingsError for targets that cannot be made, or are not (B, C) float32 rows that sum to 1.
    """

    def make(batch: Batch) -> Tensor:
        try:
            targets_BC = custom.make(batch)
        except Exception as error:  # user code may raise anything
            raise SettingsError(f"the targets {brief(custom.name)} cannot be made: {typed_line(error)}") from error
        expected = (len(batch.images), num_classes)
        if not isinstance(targets_BC, Tensor) or targets_BC.shape != expected or targets_BC.dtype != torch.float32:
            found = (
                f"{tuple(targets_BC.shape)} {targets_BC.dtype}"
                if isinstance(targets_BC, Tensor)
                else type(targets_BC).__name__
            )
            raise SettingsError(f"the targets {brief(custom.name)}: expected {expected} torch.float32, found {found}")
        if not bool(((targets_BC >= 0).all(1) & ((targets_BC.sum(1) - 1).abs() < ROUNDING)).all()):
            raise SettingsError(f"the targets {brief(custom.name)}: expected rows of numbers >= 0 that sum to 1")
        return targets_BC

    return make


def settings_targets(settings: TrainSettings, num_classes: int) -> MakeTargets:
    """The function that makes targets by the settings."""
    return TargetMaker(
        kind=settings.target,
        num_classes=num_classes,
        temperature=settings.temperature,
        original_weight=settings.original_weight,
        label_smoothing=settings.label_smoothing,
    )
