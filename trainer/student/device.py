"""Chooses device and precision for this machine, and converts errors of the device and of torch.compile."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch

from store.errors import SettingsError, TrainingError
from store.text import first_line
from trainer.settings import TrainSettings


def resolve_device(settings: TrainSettings) -> TrainSettings:
    """The settings with "auto" replaced by a device and a precision of this machine.

    Raises:
        SettingsError: device=cuda without a CUDA device.
    """
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise SettingsError("device='cuda': torch finds no CUDA device here; use device=cpu or auto")
    device, precision = settings.device, settings.precision
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    return replace(settings, device=device, precision=precision)


def autocast(settings: TrainSettings) -> AbstractContextManager[object]:
    """The context of the student's forward pass, for resolved settings."""
    if settings.precision == "bfloat16":
        return torch.autocast(settings.device, dtype=torch.bfloat16)
    return nullcontext()


def memory_format(settings: TrainSettings) -> torch.memory_format:
    """How the student and its images are laid out in memory, for resolved settings.

    Convolutions are fastest with channels last, as images arrive. On a CPU in float32 torch's batch norm is inaccurate
    in that layout: it sums a channel's pixels one by one in float32 (docs/design/0008-published-recipes.md).
    """
    exact = settings.device == "cpu" and settings.precision == "float32"
    return torch.contiguous_format if exact else torch.channels_last


@contextmanager
def full_memory() -> Iterator[None]:
    """Convert an out-of-memory error of the device into a TrainingError; a context or a decorator."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError("the device's memory is full; lower batch_size, image_size or val_size") from error


@contextmanager
def compilation() -> Iterator[None]:
    """Convert errors of torch.compile into a SettingsError; a context or a decorator."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise SettingsError(f"compiled=true: torch.compile fails ({first_line(error)}); set compiled=false") from error
