"""Builds timm's optimiser, learning-rate schedule and moving average of the weights."""

import math
from typing import Any, Protocol

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.settings import TrainSettings

RATES = 1000  # updates of a run whose learning rates are checked before it begins


class Scheduler(Protocol):
    """The methods of timm's schedulers that the trainer uses."""

    def step_update(self, num_updates: int) -> None:
        """Set the learning rate of the next update, after so many."""

    def state_dict(self) -> dict[str, Any]:
        """The schedule's settings; the rate follows from these and the number of the update."""


class Average(Protocol):
    """The parts of timm's moving average that the trainer uses."""

    module: nn.Module  # in evaluation mode

    def update(self, model: nn.Module, step: int) -> None:
        """Include the model's weights after so many updates."""


def build_average(model: nn.Module, settings: TrainSettings) -> Average | None:
    """The moving average of a model's weights and buffers, with timm's warm-up; None with ema_decay=0."""
    if settings.ema_decay == 0:
        return None
    average: Average = ModelEmaV3(model, settings.ema_decay, use_warmup=True)
    return average


def build_optimiser(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """The optimiser; biases and norms get no weight decay.

    Raises:
        SettingsError: timm has no such optimiser, or it cannot be built with these arguments.
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
    except Exception as error:  # timm's optimisers refuse arguments with exceptions of any type
        raise SettingsError(
            f"opt={brief(settings.opt)}: {first_line(error)}; timm.optim.list_optimizers() names them, "
            "opt_args are theirs"
        ) from error
    return optimiser


def build_scheduler(optimiser: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> Scheduler:
    """The schedule, to be stepped after every update; the warm-up is part of the epochs.

    Raises:
        SettingsError: arguments that timm's schedule does not take.
    """
    scheduler: Scheduler
    if noisy := sorted(name for name in settings.sched_args if name.startswith("noise")):
        raise SettingsError(
            f"sched_args: {noisy[0]} is not taken; the rate follows from the number of the update alone"
        )
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
    except Exception as error:  # timm's schedules refuse arguments with exceptions of any type
        raise SettingsError(f"sched_args={brief(settings.sched_args)}: {first_line(error)}") from error
    return scheduler


def check_rates(optimiser: Optimizer, scheduler: Scheduler, settings: TrainSettings, steps_per_epoch: int) -> None:
    """Step a schedule through a whole run: the ends of every epoch and updates between; leaves it at the start.

    Raises:
        SettingsError: a rate that cannot be computed, is negative or not finite.
    """
    total = settings.epochs * steps_per_epoch
    ends = {epoch * steps_per_epoch + i for epoch in range(settings.epochs) for i in (0, 1)}
    for update in [*sorted(ends | {total * i // RATES for i in range(RATES)}), 0]:
        try:
            scheduler.step_update(update)
            rate = float(optimiser.param_groups[0]["lr"])
        except Exception as error:  # timm's formulas raise exceptions of any type
            raise SettingsError(
                f"sched_args={brief(settings.sched_args)}: {first_line(error)} at update {update}"
            ) from error
        if not 0 <= rate < math.inf:
            raise SettingsError(f"sched_args={brief(settings.sched_args)}: the rate is {rate} at update {update}")
