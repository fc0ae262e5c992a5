"""The recipes that are called published, held against a restatement of the official training code's numbers.

Nothing here uses timm's optimisers or schedules, or the settings' own code: the numbers are those of the configuration
files, the formulas those of the papers.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.train.recipes import RECIPES
from tests.builders.training import small_settings
from trainer.batch import blank_batch
from trainer.settings import ADDED, TrainSettings, settings_to_json
from trainer.student.device import resolve_device
from trainer.student.model import build_student
from trainer.student.optim import build_optimiser, build_scheduler
from trainer.student.student import Student

EPOCHS, WARMUP, BATCH, MOMENTUM = 300, 5, 1024, 0.9
PEAK = {"sgd": 0.1, "adamp": 2e-3}
DECAY = {"sgd": 1e-4, "adamp": 1e-2}
TENSORS = {"resnet18": 62, "resnet50": 161, "resnet101": 314}  # weights and biases, norms included
PUBLISHED = [f"{model}_relabel{suffix}" for model in TENSORS for suffix in ("", "_cutmix")]


def optimiser_of(recipe: str) -> str:
    return "adamp" if recipe.endswith("_cutmix") else "sgd"


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_a_published_recipe_has_the_published_numbers(recipe: str) -> None:
    settings, opt = RECIPES[recipe](), optimiser_of(recipe)
    assert (settings.model, settings.opt) == (recipe.split("_")[0], opt)
    assert (settings.epochs, settings.batch_size, settings.accumulate) == (EPOCHS, BATCH, 1)
    assert (settings.lr, settings.weight_decay, settings.momentum) == (PEAK[opt], DECAY[opt], MOMENTUM)
    assert (settings.warmup_epochs, settings.warmup_lr, settings.min_lr) == (WARMUP, 0.0, 0.0)
    assert (settings.cutmix_prob, settings.cutmix_alpha) == (1.0 if opt == "adamp" else 0.0, 1.0)
    assert settings.mixing_off_epochs == (5 if opt == "adamp" else 0)
    assert (settings.crop_scale, settings.crop_ratio, settings.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), True)
    assert (settings.colour_jitter, settings.lighting) == (0.4, 0.1)
    assert (settings.image_size, settings.val_size, settings.val_crop_pct) == (224, 224, 0.875)
    assert (settings.interpolation, settings.temperature, settings.target) == ("bilinear", 1.0, "relabel")
    assert (settings.label_smoothing, settings.original_weight, settings.mixup_prob) == (0.0, 0.0, 0.0)
    assert (settings.clip_grad, settings.ema_decay, settings.sync_norms) == (0.0, 0.0, False)


@pytest.mark.parametrize("recipe", PUBLISHED)
@pytest.mark.parametrize("steps", [1, 7])
def test_learning_rates_are_the_published_ones(recipe: str, steps: int) -> None:
    settings, peak = RECIPES[recipe](), PEAK[optimiser_of(recipe)]
    optimiser = build_optimiser(nn.Linear(2, 2), settings)
    scheduler = build_scheduler(optimiser, settings, steps)
    found, published = [], []
    for update in range(EPOCHS * steps):
        epoch = update / steps
        fraction = (epoch - WARMUP) / (EPOCHS - WARMUP)
        published.append(peak * (epoch / WARMUP if epoch < WARMUP else (1 + math.cos(math.pi * fraction)) / 2))
        assert len({group["lr"] for group in optimiser.param_groups}) == 1
        found.append(optimiser.param_groups[0]["lr"])
        scheduler.step_update(update + 1)
    assert found == pytest.approx(published, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "recipe", ["resnet18_relabel", "resnet18_relabel_cutmix", "resnet50_relabel", "resnet101_relabel"]
)
def test_every_weight_decays_and_no_norm_starts_at_zero(recipe: str) -> None:
    settings, opt = RECIPES[recipe](), optimiser_of(recipe)
    model = build_student(settings, 1000)
    groups = build_optimiser(model, settings).param_groups
    assert sum(len(group["params"]) for group in groups) == TENSORS[settings.model]
    assert {group["weight_decay"] for group in groups} == {DECAY[opt]}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-5)}  # 0.1 of the batch's statistics
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    deviation = float(model.get_parameter("layer3.0.conv2.weight").detach().std())
    assert deviation == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)  # Kaiming's, by the outputs


def published_sgd(weights: Tensor, gradient: Tensor, memory: dict[str, Tensor], rate: float) -> Tensor:
    """SGD with Nesterov momentum 0.9, and decay 1e-4 in the gradient."""
    gradient = torch.add(gradient, weights, alpha=DECAY["sgd"])
    velocity = torch.add(memory["velocity"] * MOMENTUM, gradient) if memory else gradient
    memory["velocity"] = velocity
    return torch.add(weights, torch.add(gradient, velocity, alpha=MOMENTUM), alpha=-rate)


def published_adamp(weights: Tensor, gradient: Tensor, memory: dict[str, Tensor], rate: float) -> Tensor:
    """AdamP (Heo et al., ICLR 2021) with Nesterov momentum, and its package's defaults for the rest."""
    beta, beta_square, delta, ratio, eps = MOMENTUM, 0.999, 0.1, 0.1, 1e-8
    count = int(memory.get("count", torch.tensor(0))) + 1
    mean = torch.add(memory.get("mean", torch.zeros_like(weights)) * beta, gradient, alpha=1 - beta)
    square = memory.get("square", torch.zeros_like(weights)) * beta_square
    square = torch.addcmul(square, gradient, gradient, value=1 - beta_square)
    memory |= {"count": torch.tensor(count), "mean": mean, "square": square}
    change = (beta * mean + (1 - beta) * gradient) / (square.sqrt() / math.sqrt(1 - beta_square**count) + eps)
    decay = DECAY["adamp"]
    for rows in (len(weights), 1) if weights.dim() > 1 else ():  # each output channel by itself, then the layer
        view = (rows, -1)
        cosines = functional.cosine_similarity(gradient.reshape(view), weights.reshape(view), dim=1, eps=eps).abs()
        if cosines.max() < delta / math.sqrt(weights.numel() // rows):  # the loss does not depend on the scale
            column = (rows, *[1] * (weights.dim() - 1))
            direction = weights / (weights.reshape(view).norm(dim=1) + eps).reshape(column)
            radial = (direction * change).reshape(view).sum(dim=1).reshape(column)
            change, decay = change - direction * radial, decay * ratio
            break
    return torch.add(weights * (1 - rate * decay), change, alpha=-rate / (1 - beta**count))


@pytest.mark.parametrize("recipe", ["resnet50_relabel", "resnet50_relabel_cutmix"])
def test_updates_are_bit_equal_to_the_published_ones(recipe: str) -> None:
    """Three of them, since the first one's rate is zero, each from the student's own gradients."""
    small = {"model": "test_resnet", "image_size": 32, "val_size": 32, "batch_size": 8, "workers": 0, "device": "cpu"}
    settings = resolve_device(replace(RECIPES[recipe](), **small))  # type: ignore[arg-type]
    torch.manual_seed(0)
    student = Student(settings, num_classes=5, steps_per_epoch=2)
    rule = {"sgd": published_sgd, "adamp": published_adamp}[settings.opt]
    memories: dict[str, dict[str, Tensor]] = {name: {} for name, _ in student.model.named_parameters()}
    batch = replace(blank_batch(settings, 8), images=torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))
    for done in range(3):
        before = {name: weights.detach().clone() for name, weights in student.model.named_parameters()}
        student.update(batch, done)
        rate = PEAK[settings.opt] * done / (WARMUP * 2)
        for name, weights in student.model.named_parameters():
            assert weights.grad is not None
            wanted = rule(before[name], weights.grad, memories[name], rate)
            assert torch.equal(weights, wanted), (done, name)
            assert torch.equal(weights, before[name]) == (done == 0), (done, name)


FORMER: dict[str, Any] = {
    "image_size": 224, "crop_scale": [0.08, 1.0], "flip": True, "colour_jitter": 0.4, "lighting": 0.1, "val_size": 224,
    "val_crop_pct": 0.875, "epochs": 300, "batch_size": 1024, "opt": "sgd", "opt_args": {}, "lr": 0.1, "momentum": 0.9,
    "weight_decay": 1e-4, "sched": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-4, "label_smoothing": 0.1,
    "workers": 8, "log_interval": 100, "checkpoint_interval": 500,
}  # fmt: skip
FORMER_CUTMIX = {"opt": "adamp", "lr": 2e-3, "weight_decay": 1e-2, "cutmix_prob": 1.0, "mixing_off_epochs": 5}


@pytest.mark.parametrize(
    ("recipe", "former"),
    [("resnet50_relabel_timm", FORMER), ("resnet50_relabel_cutmix_timm", FORMER | FORMER_CUTMIX)],
)
def test_run_folders_of_earlier_releases_are_resumed_with_the_recipes_of_timms_habits(
    recipe: str, former: dict[str, Any]
) -> None:
    defaults = settings_to_json(TrainSettings(model="resnet50"))
    assert settings_to_json(RECIPES[recipe]()) == defaults | former | dict(ADDED)


def test_the_demo_keeps_its_settings() -> None:
    demo = settings_to_json(RECIPES["demo"]())
    assert (
        {name: demo[name] for name in ADDED} == dict(ADDED) == {name: getattr(small_settings(), name) for name in ADDED}
    )
