"""What `relabel-train evaluate` evaluates: a student of this project, or any network that timm knows by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from annotator.teacher.weights import fit_state, load_state
from store.errors import RunFolderError
from store.text import counted
from trainer.checkpoint import load_checkpoint
from trainer.device import resolve_device
from trainer.model import build_student
from trainer.named import named_settings
from trainer.settings import TrainSettings
from trainer.trained import build_trained

WEIGHTS = {"model": "weights", "ema": "moving average"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A network by timm's name, whose weights lie in a file from elsewhere."""

    model: str
    model_args: dict[str, Any]
    num_classes: int | None  # None: as many as timm's own weights have


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate:
    """A network that is ready to be evaluated."""

    model: nn.Module  # on the settings' device
    settings: TrainSettings  # resolved
    num_classes: int
    origin: str  # which weights, after how many epochs


def load_candidate(checkpoint: Path, named: Named | None, chosen: Mapping[str, Any]) -> Candidate:
    """Read a checkpoint: with a name, weights from elsewhere; without, one of this project's.

    Args:
        checkpoint: a safetensors file or what torch.save wrote; nothing in it is executed.
        named: the network that the weights are for.
        chosen: settings of evaluation that replace the network's own.

    Raises:
        RunFolderError: not a checkpoint of this project.
        TeacherError: from elsewhere, and cannot be read or does not fit.
        SettingsError: no such network, or a setting that cannot be.
    """
    if named is not None:
        return _load_named(checkpoint, named, chosen)
    try:
        content = load_checkpoint(checkpoint)
    except RunFolderError as error:
        if not checkpoint.is_file():
            raise
        raise RunFolderError(f"{error}. A checkpoint from elsewhere needs --model NAME") from error
    trained = build_trained(content, checkpoint, chosen={**chosen, "accumulate": 1})
    return Candidate(
        model=trained.model,
        settings=trained.settings,
        num_classes=trained.num_classes,
        origin=f"{WEIGHTS[trained.weights]} after {counted(trained.epoch, 'epoch')}",
    )


def _load_named(checkpoint: Path, named: Named, chosen: Mapping[str, Any]) -> Candidate:
    settings, num_classes = named_settings(named.model, named.model_args, chosen)
    num_classes = named.num_classes or num_classes
    model = build_student(settings, num_classes)
    fit_state(model, load_state(checkpoint), checkpoint, role=f"{settings.model} with {num_classes:,} classes")
    settings = resolve_device(settings)
    return Candidate(
        model=model.to(settings.device).eval(), settings=settings, num_classes=num_classes, origin="given weights"
    )
