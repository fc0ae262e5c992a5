"""A trained student out of a checkpoint of this project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from store.errors import RunFolderError
from trainer.checkpoint import load_checkpoint
from trainer.device import resolve_device
from trainer.model import build_student
from trainer.overrides import settings_from_json
from trainer.settings import TrainSettings
from trainer.wording import reason

Weights = Literal["model", "ema"]
"""The weights that were trained, or their moving average."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """A student in evaluation mode, and what is known of it."""

    model: nn.Module  # on the settings' device
    settings: TrainSettings  # it was trained with these, resolved for here
    num_classes: int
    weights: Weights
    epoch: int  # epochs done
    top1: float | None  # of these weights on the run's validation shards, 0 to 1; None if that is not known


def load_trained(file: Path, weights: Weights | None = None) -> Trained:
    """Read a checkpoint and build its student on this machine's device.

    Args:
        file: the checkpoint.
        weights: which of them; None for the moving average where there is one.

    Raises:
        RunFolderError: the checkpoint is absent or damaged, has no such weights, or its student cannot be built here.
    """
    checkpoint = load_checkpoint(file)
    ema: dict[str, Any] | None = getattr(checkpoint, "ema", None)
    if weights == "ema" and not ema:
        raise RunFolderError(f"{file}: holds no moving average (its run had ema_decay=0); take the model's weights")
    chosen: Weights = weights or ("ema" if ema else "model")
    state = ema if ema and chosen == "ema" else checkpoint.model
    try:
        settings = resolve_device(settings_from_json({**checkpoint.settings, "device": "auto", "precision": "auto"}))
        model = build_student(settings, checkpoint.num_classes)
        model.load_state_dict(state)
    except Exception as error:  # whatever odd settings and tensors make torch raise
        raise RunFolderError(f"{file}: holds no student that can be used here: {reason(error)}") from error
    return Trained(
        model=model.to(settings.device).eval(),
        settings=settings,
        num_classes=checkpoint.num_classes,
        weights=chosen,
        epoch=checkpoint.epoch,
        # Where there is a moving average, it is what was evaluated.
        top1=None if ema and chosen == "model" else checkpoint.top1,
    )
