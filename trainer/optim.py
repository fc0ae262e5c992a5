"""Optimiser, learning-rate schedule and moving average, all of them timm's."""

from typing import Any, Protocol

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from store.errors import SettingsError
from trainer.settings import TrainSettings
from trainer.wording import brief, reason


class Scheduler(Protocol):
    """What is used of timm's schedulers."""

    def step_update(self, num_updates: int) -> None:
        """Set the rate for the next update, after this many."""

    def state_dict(self) -> dict[str, Any]:
        """What it was made with; the rate follows from that and the number of the update."""


class Average(Protocol):
    """What is used of timm's moving average."""

    module: nn.Module  # in evaluation mode

    def update(self, model: nn.Module, step: int) -> None:
        """Move on after this many updates."""


def build_average(model: nn.Module, settings: TrainSettings) -> Average | None:
    """The moving average of a model's weights and buffers, which warms up; None where the settings keep none."""
    if settings.ema_decay == 0:
        return None
    average: Average = ModelEmaV3(model, settings.ema_decay, use_warmup=True)
    return average


def build_optimiser(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """The optimiser; biases and norms are left out of the weight decay.

    Raises:
        SettingsError: timm has no such optimiser, or it cannot be had here.
    """
    try:
        optimiser: Optimizer = create_optimizer_v2(
            model,
            opt=settings.opt,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **settings.opt_args,
        )
    except Exception as error:  # each of timm's optimisers has its own way to refuse
        raise SettingsError(
            f"opt={brief(settings.opt)}: {reason(error)}; timm.optim.list_optimizers() names them, opt_args are theirs"
        ) from error
    return optimiser


def build_scheduler(optimiser: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> Scheduler:
    """The schedule, stepped after every update; warm-up counts as part of the epochs.

    Raises:
        SettingsError: arguments that timm's schedule does not take.
    """
    scheduler: Scheduler
    try:
        scheduler, _ = create_scheduler_v2(
            optimiser,
            sched=settings.sched,
            num_epochs=settings.epochs,
            warmup_epochs=settings.warmup_epochs,
            warmup_lr=settings.warmup_lr,
            min_lr=settings.min_lr,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
            **settings.sched_args,
        )
    except Exception as error:  # each of timm's schedules has its own way to refuse
        raise SettingsError(f"sched_args={brief(settings.sched_args)}: {reason(error)}") from error
    return scheduler
