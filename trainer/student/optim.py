"""Builds timm's optimiser, learning-rate schedule and moving average of the weights."""

import inspect
import math
from typing import Any, Protocol

from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from store.errors import SettingsError
from store.text import brief, first_line
from trainer.settings import TrainSettings
from trainer.types import Schedule

RATES = 1000  # updates of a run whose learning rates are checked before it begins
# Arguments of timm's factories that are not the optimiser's own, and those that each schedule uses: timm takes all of
# them for any optimiser and schedule, and drops what does not apply without a word.
LAYER_DECAY = frozenset({"layer_decay", "layer_decay_min_scale", "layer_decay_no_opt_scale"})
GROUPING = frozenset({"filter_bias_and_bn", "fallback_list", "fallback_no_weight_decay"})
CYCLES = frozenset({"warmup_prefix", "cycle_mul", "cycle_decay", "cycle_limit"})
SCHED_ARGS: dict[Schedule, frozenset[str]] = {
    "cosine": CYCLES | {"k_decay"},
    "tanh": CYCLES,
    "poly": CYCLES | {"k_decay", "decay_rate"},
    "step": frozenset({"warmup_prefix", "decay_epochs", "decay_rate"}),
    "multistep": frozenset({"warmup_prefix", "decay_milestones", "decay_rate"}),
    "constant": frozenset({"warmup_prefix"}),
}


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
    """The optimiser; biases and norms get weight decay with `decay_all` only.

    Raises:
        SettingsError: timm has no such optimiser, or it cannot be built with these arguments or does not use one.
    """
    grouping = {"filter_bias_and_bn": False} if settings.decay_all else {}
    try:
        if unused := sorted(settings.opt_args.keys() - _optimiser_args(settings)):
            raise ValueError(f"opt_args: {brief(unused[0])} would have no effect")
        optimiser: Optimizer = create_optimizer_v2(
            model,
            opt=settings.opt,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **grouping,
            **settings.opt_args,
        )
    except Exception as error:  # timm's optimisers refuse arguments with exceptions of any type
        raise SettingsError(
            f"opt={brief(settings.opt)}: {first_line(error)}; timm.optim.list_optimizers() names them, "
            "opt_args are theirs"
        ) from error
    return optimiser


def _optimiser_args(settings: TrainSettings) -> frozenset[str]:
    """The names that opt_args may have: those of the optimiser's constructor, and of timm's groups of weights.

    Raises:
        ValueError: timm has no such optimiser.
    """
    prefix, _, name = settings.opt.lower().rpartition("_")
    if prefix not in ("", "lookahead"):
        raise ValueError(f"{brief(prefix)} would have no effect")
    own = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    return GROUPING.union(own, LAYER_DECAY if "layer_decay" in settings.opt_args else ())


def build_scheduler(optimiser: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> Scheduler:
    """The schedule, to be stepped after every update; the warm-up is part of the epochs.

    Raises:
        SettingsError: arguments that timm's schedule does not take or use.
    """
    scheduler: Scheduler
    if noisy := sorted(name for name in settings.sched_args if name.startswith("noise")):
        raise SettingsError(
            f"sched_args: {noisy[0]} is not taken; the rate follows from the number of the update alone"
        )
    if unused := sorted(settings.sched_args.keys() - SCHED_ARGS[settings.sched]):
        raise SettingsError(
            f"sched_args: {brief(unused[0])} would have no effect with sched={settings.sched}, which uses "
            f"{', '.join(sorted(SCHED_ARGS[settings.sched]))}"
        )
    # With timm's prefix, `num_epochs` are those after the warm-up.
    span: dict[str, Any] = {"num_epochs": settings.epochs}
    if settings.decay_after_warmup:
        span = {"num_epochs": settings.epochs - settings.warmup_epochs, "warmup_prefix": True}
    try:
        scheduler, _ = create_scheduler_v2(
            optimiser,
            sched=settings.sched,
            warmup_epochs=settings.warmup_epochs,
            warmup_lr=settings.warmup_lr,
            min_lr=settings.min_lr,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
            **span,
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
