"""Builds trained students from checkpoints of this project, and exports their weights as safetensors."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from store.errors import RunFolderError
from store.files import write_atomically
from store.text import first_line
from trainer.settings import TrainSettings, settings_from_json, without_retired
from trainer.student.checkpoint import Checkpoint, load_checkpoint
from trainer.student.device import resolve_device
from trainer.student.model import build_student, check_images

Weights = Literal["model", "ema"]
"""The trained weights, or their moving average."""

SUFFIX = ".safetensors"  # timm and others recognise the format by it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """A student in evaluation mode, with its settings and results."""

    model: nn.Module  # on the settings' device
    settings: TrainSettings  # of its training, with this machine's device and precision
    num_classes: int
    weights: Weights
    epoch: int  # finished epochs
    top1: float | None  # of these weights on the run's validation shards, 0 to 1; None if unknown


def load_trained(file: Path, weights: Weights | None = None) -> Trained:
    """Read a checkpoint and build its student.

    Args:
        file: the checkpoint.
        weights: the weights to take; None for the moving average if the checkpoint has one.

    Raises:
        RunFolderError: the checkpoint is absent, damaged, has no such weights, or its student cannot be built here.
    """
    return build_trained(load_checkpoint(file), file, weights)


def build_trained(
    checkpoint: Checkpoint, file: Path, weights: Weights | None = None, chosen: Mapping[str, Any] | None = None
) -> Trained:
    """Build a checkpoint's student on this machine's device.

    Args:
        checkpoint: from `load_checkpoint`.
        file: its path, for messages.
        weights: the weights to take; None for the moving average if the checkpoint has one.
        chosen: settings that replace those of its training.

    Raises:
        RunFolderError: it has no such weights, or its student cannot be built here.
        SettingsError: a chosen setting that is out of range.
    """
    ema = checkpoint.ema
    if weights == "ema" and not ema:
        raise RunFolderError(f"{file}: holds no moving average (its run had ema_decay=0); take the model's weights")
    taken: Weights = weights or ("ema" if ema else "model")
    with _no_student(file):
        settings = _settings_here(settings_from_json(without_retired(checkpoint.settings) | {"device": "auto"}))
    settings = replace(settings, **(chosen or {}))
    with _no_student(file):
        model = build_student(settings, checkpoint.num_classes)
        check_images(model, settings, checkpoint.num_classes)
        state = ema if ema and taken == "ema" else checkpoint.model
        if problem := _unfit_weights(state, model.state_dict()):
            raise ValueError(problem)
        model.load_state_dict(state)
    return Trained(
        model=model.to(settings.device).eval(),
        settings=settings,
        num_classes=checkpoint.num_classes,
        weights=taken,
        epoch=checkpoint.epoch,
        # Accuracies are of the ends of epochs, and of the moving average in a run that has one.
        top1=None if checkpoint.samples_seen or (ema and taken == "model") else checkpoint.top1,
    )


def _unfit_weights(state: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str | None:
    """A message about weights that torch would load silently: of another dtype, or not finite."""
    for name, tensor in state.items():
        if name in expected and isinstance(tensor, Tensor):
            if tensor.is_floating_point() != expected[name].is_floating_point() or tensor.is_complex():
                return f"{name} holds {tensor.dtype}"
            if not tensor.isfinite().all():
                return f"{name} is not finite"
    return None


def _settings_here(settings: TrainSettings) -> TrainSettings:
    """The settings with this machine's device and precision; a student trained in float32 stays in float32."""
    return resolve_device(settings if settings.precision == "float32" else replace(settings, precision="auto"))


@contextmanager
def _no_student(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises exceptions of any type for odd settings and tensors
        raise RunFolderError(f"{file}: holds no student that can be used here: {first_line(error)}") from error


def export_student(checkpoint: Path, out: Path, weights: Weights | None = None) -> Trained:
    """Write the weights of a checkpoint's student and their metadata to a new safetensors file.

    Args:
        checkpoint: of this project.
        out: the file, whose name ends in .safetensors.
        weights: the weights to take; None for the moving average if the checkpoint has one.

    Returns:
        The student whose weights were written.

    Raises:
        RunFolderError: the checkpoint cannot be used, the file exists, or writing failed.
    """
    if out.suffix != SUFFIX:
        raise RunFolderError(f"{out}: the name must end in {SUFFIX}; timm recognises the format by it")
    if os.path.lexists(out):
        raise RunFolderError(f"{out}: exists already; choose another name, or move it away")
    student = load_trained(checkpoint, weights)
    content = save(plain_tensors(student.model), metadata(student))
    with write_atomically(out) as handle:
        handle.write(content)
    return student


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A network's state as contiguous CPU tensors, none of which shares memory with another."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def metadata(student: Trained) -> dict[str, str]:
    """Architecture, preprocessing and results of a student as texts; `model_args`, `mean` and `std` are JSON."""
    settings = student.settings
    texts = {
        "format": "pt",
        "architecture": settings.model,
        "model_args": json.dumps(settings.model_args),
        "num_classes": str(student.num_classes),
        "image_size": str(settings.val_size),
        "crop_pct": str(settings.val_crop_pct),
        "mean": json.dumps(settings.mean),
        "std": json.dumps(settings.std),
        "interpolation": settings.interpolation,
        "weights": student.weights,
        "epoch": str(student.epoch),
    }
    return texts if student.top1 is None else texts | {"top1": str(student.top1)}
