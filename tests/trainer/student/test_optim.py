from typing import Any

import pytest
from torch import nn

from store.errors import SettingsError
from tests.builders.training import small_settings
from trainer.settings import TrainSettings
from trainer.student.model import build_student
from trainer.student.optim import SCHED_ARGS, build_optimiser, build_scheduler


def build(settings: TrainSettings) -> None:
    build_scheduler(build_optimiser(build_student(settings, 5), settings), settings, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt": "sgd", "opt_args": {"eps": 1e-3}}, "opt='sgd': opt_args: 'eps' would have no effect"),
        ({"opt": "lion", "opt_args": {"eps": 1e-3}}, "opt='lion': opt_args: 'eps'"),
        ({"opt": "sgd", "opt_args": {"betas": [0.8, 0.9]}}, "opt='sgd': opt_args: 'betas'"),
        ({"opt": "adamp", "opt_args": {"wdratio": 0.1}}, "opt='adamp': opt_args: 'wdratio'"),
        ({"opt": "adamw", "opt_args": {"layer_decay_min_scale": 0.5}}, "opt_args: 'layer_decay_min_scale'"),
        ({"opt": "lookahed_adam"}, "opt='lookahed_adam': 'lookahed' would have no effect"),
        ({"opt_args": {"lr": 0.1}}, "opt='sgd': .*lr"),
        ({"decay_all": True, "opt_args": {"filter_bias_and_bn": True}}, "opt='sgd': .*filter_bias_and_bn"),
        ({"sched_args": {"decay_rate": 0.5}}, "sched_args: 'decay_rate' would have no effect with sched=cosine"),
        ({"sched_args": {"cooldown_epochs": 1}}, "sched_args: 'cooldown_epochs' would have no effect"),
        ({"sched": "step", "sched_args": {"k_decay": 2}}, "sched_args: 'k_decay' would have no effect with sched=step"),
        ({"decay_after_warmup": True, "sched_args": {"warmup_prefix": False}}, "sched_args=.*warmup_prefix"),
        ({"sched_args": {"decay": 1}}, "sched_args: 'decay' would have no effect"),
    ],
)
def test_arguments_without_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    """Timm drops most of these without a word."""
    with pytest.raises(SettingsError, match=message) as caught:
        build(small_settings(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "adamw", "opt_args": {"eps": 1e-6, "betas": [0.8, 0.9]}},
        {"opt": "adamw", "opt_args": {"layer_decay": 0.7, "layer_decay_min_scale": 0.1}},
        {"opt": "lookahead_adamp", "opt_args": {"wd_ratio": 0.1, "delta": 0.2}},
        {"opt": "SGD", "opt_args": {"filter_bias_and_bn": False, "dampening": 0.0}},
    ],
)
def test_arguments_of_the_optimiser_and_of_its_groups_are_taken(changes: dict[str, Any]) -> None:
    build(small_settings(**changes))


SOME = {
    "warmup_prefix": True, "cycle_mul": 1.5, "cycle_decay": 0.7, "cycle_limit": 2, "k_decay": 1.5, "decay_rate": 0.3,
    "decay_epochs": 2, "decay_milestones": [1, 3],
}  # fmt: skip


@pytest.mark.parametrize(
    ("sched", "name"), [(sched, name) for sched in SCHED_ARGS for name in sorted(SCHED_ARGS[sched])]
)
def test_every_argument_that_a_schedule_takes_has_an_effect(sched: str, name: str) -> None:
    found = []
    for changes in ({}, {name: SOME[name]}):
        both = {"cycle_limit": 2} if name.startswith("cycle_") and name != "cycle_limit" else {}
        settings = small_settings(epochs=8, warmup_epochs=1, sched=sched, sched_args=both | changes)
        scheduler = build_scheduler(build_optimiser(nn.Linear(2, 2), settings), settings, 4)
        found.append(scheduler.state_dict())
    assert found[0] != found[1]


@pytest.mark.parametrize(("decay_all", "decays"), [(False, {0.0, 1e-4}), (True, {1e-4})])
def test_biases_and_norms_decay_by_the_setting(decays: set[float], *, decay_all: bool) -> None:
    settings = small_settings(decay_all=decay_all)
    model = build_student(settings, 5)
    groups = build_optimiser(model, settings).param_groups
    assert {group["weight_decay"] for group in groups} == decays
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(("decay_after_warmup", "middle"), [(False, 5), (True, 6)])
def test_the_cosine_spans_all_epochs_or_those_after_the_warm_up(middle: int, *, decay_after_warmup: bool) -> None:
    """Half of the peak is reached in the middle of the span: epoch 5 of 10, or epoch 6 of 2 to 10."""
    settings = small_settings(epochs=10, warmup_epochs=2, lr=1.0, decay_after_warmup=decay_after_warmup)
    optimiser = build_optimiser(nn.Linear(2, 2), settings)
    scheduler = build_scheduler(optimiser, settings, 3)
    scheduler.step_update(3 * middle)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.5)
    scheduler.step_update(3 * 10 - 1)
    assert 0 < optimiser.param_groups[0]["lr"] < 0.01
