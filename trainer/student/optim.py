"""Optimiser, learning-rate schedule and moving average, all of them timm's."""

import math
from typing import Any, Protocol

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.settings import TrainSettings

RATES = 1000  # updates of a run whose rates are looked at before it begins


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
            f"opt={brief(settings.opt)}: {first_line(error)}; timm.optim.list_optimizers() names them, "
            "opt_args are theirs"
        ) from error
    return optimiser


def build_scheduler(optimiser: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> Scheduler:
    """The schedule, stepped after every update; warm-up counts as part of the epochs.

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
    except Exception as error:  # each of timm's schedules has its own way to refuse
        raise SettingsError(f"sched_args={brief(settings.sched_args)}: {first_line(error)}") from error
    return scheduler


def check_schedule(settings: TrainSettings, steps_per_epoch: int) -> None:
    """Go through the rates of a whole run, of every epoch's ends and of updates between.

    Raises:
        SettingsError: a rate that cannot be computed, or is no number of 0 or more.
    """
    optimiser = SGD([Parameter(torch.zeros(1))], lr=settings.lr)
    scheduler = build_scheduler(optimiser, settings, steps_per_epoch)
    total = settings.epochs * steps_per_epoch
    ends = {epoch * steps_per_epoch + i for epoch in range(settings.epochs) for i in (0, 1)}
    for update in sorted(ends | {total * i // RATES for i in range(RATES)}):
        try:
            scheduler.step_update(update)
            rate = float(optimiser.param_groups[0]["lr"])
        except Exception as error:  # whatever odd numbers make timm's formulas raise
            raise SettingsError(
                f"sched_args={brief(settings.sched_args)}: {first_line(error)} at update {update}"
            ) from error
        if not 0 <= rate < math.inf:
            raise SettingsError(f"sched_args={brief(settings.sched_args)}: the rate is {rate} at update {update}")
