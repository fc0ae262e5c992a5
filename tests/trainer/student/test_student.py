import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import RunFolderError, SettingsError, TrainingError
from tests.builders.training import small_settings
from trainer.batch import Batch
from trainer.student.checkpoint import TrainState, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.model import build_student
from trainer.student.optim import build_optimiser, build_scheduler
from trainer.student.student import Student, step_seed

Change = Callable[[Any], Any]


def make_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator),
        boxes=torch.tensor([[0.0, 0.25, 0.5, 1.0]]).repeat(size, 1),
        classes=torch.arange(3).reshape(1, 3, 1, 1).expand(size, 3, 2, 2).to(torch.uint16),
        scores=torch.tensor([9.0, 2.0, 1.0]).reshape(1, 3, 1, 1).expand(size, 3, 2, 2).half(),
        labels=torch.zeros(size, dtype=torch.int64),
        flips=torch.zeros(size, dtype=torch.bool),
    )


def seeded_student(*, steps_per_epoch: int = 1, **changes: Any) -> Student:
    settings = resolve_device(small_settings(**changes))
    torch.manual_seed(settings.seed)
    return Student(settings, num_classes=5, steps_per_epoch=steps_per_epoch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet19"}, "model='resnet19': timm has no such model; did you mean .*resnet18"),
        ({"model": "hf-hub:somebody/model"}, "timm has no such model"),
        ({"model_args": {"colour": 1}}, r"model_args=\{'colour': 1\}: .*colour"),
        *(
            ({"model_args": {name: True}}, f"model_args: '{name}' cannot be set; leave it out")
            for name in ("pretrained", "num_classes", "checkpoint_path", "in_chans", "pretrained_cfg", "features_only")
        ),
        ({"model_args": {"stem_width": "wide"}}, r"model='test_resnet' cannot be built with model_args="),
        ({"model_args": {"block_args": 3}}, r"model='test_resnet' cannot be built with model_args="),
        ({"model": "vit_tiny_patch16_224", "model_args": {}}, r"does not take images of 32 x 32 pixels .*img_size"),
        (
            {"model": "test_convnext", "model_args": {"global_pool": ""}},
            "does not give one logit for each of 5 classes",
        ),
    ],
)
def test_students_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        seeded_student(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [AssertionError(), AttributeError(), ZeroDivisionError()])
@pytest.mark.parametrize("where", ["timm.create_model", "timm.models.ResNet.forward"])
def test_exceptions_of_any_type_from_a_model_become_one_line_that_names_it(
    where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error without a message is named by its type."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(SettingsError, match=f"model='test_resnet' .*{type(error).__name__}"):
        seeded_student()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt": "adahessian"}, "model='test_resnet' cannot be trained with opt='adahessian': .*grad"),
        ({"batch_size": 1, "model": "test_byobnet", "image_size": 16}, "a first update fails .*more than 1 value per"),
    ],
)
def test_models_and_optimisers_that_fail_are_refused_before_training(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        seeded_student(**changes, steps_per_epoch=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "muon", "adafactor", "rmsproptf", "lookahead_adam"])
@pytest.mark.parametrize("rate", [1e-8, 1e6])
def test_every_rate_that_is_allowed_can_be_computed_with(opt: str, rate: float) -> None:
    """No overflow of float32, though such rates train nothing."""
    student = seeded_student(opt=opt, lr=rate, weight_decay=rate, warmup_lr=rate, min_lr=rate, steps_per_epoch=2)
    for step in range(2):
        student.update(make_batch(), step)


def test_the_rehearsal_leaves_no_trace() -> None:
    student = seeded_student(opt="adamw", warmup_epochs=1, warmup_lr=0.01)
    generator = torch.get_rng_state()
    torch.manual_seed(student.settings.seed)
    for name, tensor in build_student(student.settings, 5).state_dict().items():
        assert torch.equal(tensor, student.model.state_dict()[name]), name
    assert torch.equal(torch.get_rng_state(), generator)
    assert not student.optimiser.state
    assert student.lr == 0.01
    assert student.model.training


def test_a_full_device_memory_is_a_training_error(monkeypatch: pytest.MonkeyPatch) -> None:
    student = seeded_student(steps_per_epoch=1)

    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(student.model, "forward", fill)
    with pytest.raises(TrainingError, match="the device's memory is full; lower batch_size"):
        student.update(make_batch(), 0)


def test_a_student_is_the_same_for_the_same_seed() -> None:
    a, b, c = (seeded_student(seed=seed) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in student.model.parameters()]) for student in (a, b, c)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_sgd_has_nesterov_momentum() -> None:
    optimiser = build_optimiser(build_student(small_settings(momentum=0.8), 5), small_settings(momentum=0.8))
    assert isinstance(optimiser, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.8 for group in optimiser.param_groups)


def test_unknown_optimisers_are_refused() -> None:
    settings = small_settings(opt="sdg")
    with pytest.raises(SettingsError, match="opt='sdg': "):
        build_optimiser(build_student(small_settings(), 5), settings)


@pytest.mark.parametrize("sched", ["cosine", "constant"])
def test_the_schedule_warms_up_by_updates_and_stays_or_falls(sched: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = small_settings(epochs=4, warmup_epochs=1, lr=0.4, warmup_lr=0.1, min_lr=0.01, sched=sched)
    optimiser = build_optimiser(build_student(settings, 5), settings)
    scheduler, rates = build_scheduler(optimiser, settings, 10), []
    for update in range(1, 41):
        rates.append(optimiser.param_groups[0]["lr"])
        scheduler.step_update(update)
    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(0.25)
    assert max(rates) == pytest.approx(0.4, rel=0.2)
    assert rates[-1] == pytest.approx({"cosine": 0.01, "constant": 0.4}[sched], rel=0.1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_updates_bring_the_loss_down_to_the_targets_own_entropy() -> None:
    student = seeded_student(lr=0.02, sched="constant", steps_per_epoch=60)
    batch = make_batch()
    losses = [float(student.update(batch, step)) for step in range(60)]
    assert losses[0] > 1.0
    assert losses[-1] < 0.2


def test_flips_mirror_the_images_that_the_student_sees() -> None:
    batch = make_batch()
    mirrored = replace(batch, images=batch.images.flip(-1), flips=torch.ones(8, dtype=torch.bool))
    losses = [
        float(seeded_student(steps_per_epoch=4).update(part, 0))
        for part in (batch, mirrored, replace(batch, flips=mirrored.flips))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_dropout_depends_on_the_step_alone(tmp_path: Path) -> None:
    """So a resumed run needs no generator's state."""
    student = seeded_student(model_args={"drop_rate": 0.5}, steps_per_epoch=4)
    save_checkpoint(tmp_path / "last.pt", student.checkpoint(TrainState(epoch=1)))
    losses: list[float] = []
    for step in (2, 2, 3):
        student.restore(tmp_path / "last.pt")
        student.model.train()
        torch.rand(17)  # other draws in between
        losses.append(float(student.update(make_batch(), step)))
    assert losses[0] == losses[1] != losses[2]
    assert len({step_seed(*parts) for parts in ((0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0))}) == 4


def make_student() -> Student:
    return seeded_student(opt="adamw", steps_per_epoch=2)


def put(**changes: object) -> Change:
    return lambda state: {**state, **changes}


def put_in_groups(**changes: object) -> Change:
    return lambda state: {**state, "param_groups": [group | changes for group in state["param_groups"]]}


def put_for_all(value: object) -> Change:
    return lambda state: {**state, "state": dict.fromkeys(state["state"], value)}


def spoil_moments(state: Any) -> Any:
    return {
        **state,
        "state": {i: {**kept, "exp_avg": kept["exp_avg"] * torch.nan} for i, kept in state["state"].items()},
    }


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("settings", put(lr=0.5), "lr: 0.5 then, 0.05 now"),
        ("settings", put(model="resnet18", seed=None), "model: 'resnet18' then, 'test_resnet' now; seed: None then"),
        ("settings", put(lr=torch.ones(2)), ""),
        ("settings", lambda _: {}, "batch_size: None then, 32 now"),
        ("num_classes", lambda _: 6, "classes: 6 then, 5 now"),
        ("epoch", lambda _: 3, "epochs: 3 done, 2 wanted"),
        ("samples_seen", lambda _: 33, "samples seen: 33, not a number of whole batches of 32 in an epoch"),
        ("samples_seen", lambda _: 96, "samples seen: 96, not a number"),
        ("ema", lambda _: {}, "moving average: there is none"),
        ("scheduler", lambda _: {}, "base_values: None then"),
        ("scheduler", put(base_values=[5.0]), r"base_values: \[5.0\] then"),
        ("scheduler", put(update_groups=1), "update_groups: 1 then, None now"),
        ("model", lambda _: {}, "Missing key"),
        ("model", lambda state: {**state, "fc.bias": torch.ones(6)}, "size mismatch for fc.bias"),
        ("model", lambda state: {**state, "fc.bias": "text"}, ""),
        ("model", lambda state: {**state, 3: 4}, ""),
        ("model", lambda state: {**state, "fc.bias": state["fc.bias"] * torch.nan}, "not finite"),
        ("optimiser", spoil_moments, "not finite"),
        ("optimiser", lambda _: {}, ""),
        ("optimiser", put(param_groups=1), ""),
        ("optimiser", put(param_groups=[1, 2]), ""),
        ("optimiser", put(state=[]), ""),
        ("optimiser", put_in_groups(lr="fast"), ""),
        ("optimiser", put_in_groups(betas=()), ""),
        ("optimiser", put_for_all(1), ""),
        ("optimiser", put_for_all({"step": "x"}), ""),
        ("optimiser", put_for_all(dict.fromkeys(("step", "exp_avg", "exp_avg_sq"), torch.ones(9))), ""),
    ],
)  # fmt: skip
def test_an_odd_checkpoint_is_refused_in_one_line(tmp_path: Path, part: str, change: Change, message: str) -> None:
    student, file = make_student(), tmp_path / "last.pt"
    student.update(make_batch(), 0)
    good = student.checkpoint(TrainState(epoch=1))
    save_checkpoint(file, good)
    assert make_student().restore(file).epoch == 1
    save_checkpoint(file, replace(good, **{part: change(getattr(good, part))}))
    with pytest.raises(RunFolderError, match=rf"last.pt: not a checkpoint of this run \(.*{message}") as caught:
        make_student().restore(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; restore it, or train again in another folder")


def test_a_checkpoint_may_come_from_another_machine(tmp_path: Path) -> None:
    student = make_student()
    checkpoint = student.checkpoint(TrainState(epoch=1))
    elsewhere = {"workers": 9, "device": "cuda", "log_interval": 7}
    save_checkpoint(tmp_path / "last.pt", replace(checkpoint, settings=checkpoint.settings | elsewhere))
    student.restore(tmp_path / "last.pt")


def test_cuda_without_a_cuda_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match="device='cuda': torch finds no CUDA device"):
        resolve_device(small_settings(device="cuda"))
    resolved = resolve_device(small_settings(device="auto"))
    assert (resolved.device, resolved.precision) == ("cpu", "float32")


def test_auto_on_cuda_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    resolved = resolve_device(small_settings(device="auto"))
    assert (resolved.device, resolved.precision) == ("cuda", "bfloat16")


def test_bfloat16_trains_on_the_cpu_too() -> None:
    student = seeded_student(precision="bfloat16", steps_per_epoch=1)
    assert torch.isfinite(student.update(make_batch(), 0))


def test_statistics_of_norms_are_exact_on_a_cpu_in_float32() -> None:
    """With channels last torch's are wrong by 2e-5 for as many pixels."""
    student = seeded_student(image_size=128, val_size=128, batch_size=32)
    seen: list[torch.Tensor] = []
    norm = next(module for module in student.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.momentum = 1.0  # the running variance is the batch's
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    pixels = torch.randint(0, 256, (32, 128, 128, 3), dtype=torch.uint8).permute(0, 3, 1, 2)  # as they are loaded
    student.update(replace(make_batch(32), images=pixels), 0)
    assert norm.running_var is not None
    variances = seen[0].double().var((0, 2, 3))
    assert float((norm.running_var.double() / variances - 1).abs().max()) < 5e-7


@pytest.mark.gpu
def test_a_student_learns_on_the_gpu_and_its_step_never_waits(cuda: torch.device) -> None:
    student = seeded_student(device="auto", lr=0.02, steps_per_epoch=100)
    batch = make_batch().to(cuda)
    first = float(student.update(batch, 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 60):
            loss = student.update(batch, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(loss) < first / 2


def test_the_last_epochs_are_not_mixed() -> None:
    student = Student(
        resolve_device(small_settings(epochs=3, mixing_off_epochs=1, cutmix_prob=1.0)), num_classes=5, steps_per_epoch=2
    )
    mixed: list[bool] = []
    augment = student._augment

    def watched(*arguments: Any, mixes: bool, **options: Any) -> Any:
        mixed.append(mixes)
        return augment(*arguments, mixes=mixes, **options)

    student._augment = watched  # type: ignore[assignment]
    for step in range(6):
        student.update(make_batch(), step)
    assert mixed == [True] * 4 + [False] * 2


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    found = []
    for accumulate in (1, 3):  # test_resnet's norms would tell parts apart
        student = seeded_student(model="test_convnext", opt="sgd", accumulate=accumulate, batch_size=24)
        loss = student.update(make_batch(), 0)
        found.append((loss, torch.cat([weights.detach().flatten() for weights in student.model.parameters()])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    student = seeded_student(clip_grad=1e-3, steps_per_epoch=1)
    student.update(make_batch(), 0)
    norm = torch.cat(
        [weights.grad.flatten() for weights in student.model.parameters() if weights.grad is not None]
    ).norm()
    assert 0 < norm <= 1.001e-3


@pytest.mark.slow
def test_a_compiled_student_has_the_losses_of_a_plain_one() -> None:
    losses = []
    for compiled in (False, True):
        student = seeded_student(compiled=compiled, opt="sgd", steps_per_epoch=3)
        losses.append([float(student.update(make_batch(), step)) for step in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_missing_compiler_is_a_settings_error() -> None:
    student = seeded_student(compiled=True, steps_per_epoch=3)

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("no C++ compiler")

    student._network = fail
    with pytest.raises(SettingsError, match=r"torch.compile fails \(no C\+\+ compiler\); set compiled=false"):
        student.update(make_batch(), 0)


def test_the_moving_average_follows_and_is_what_is_evaluated() -> None:
    student = seeded_student(ema_decay=0.5, steps_per_epoch=9)
    for step in range(3):
        student.update(make_batch(), step)
    assert student.evaluated() is not student.model
    name, weights = next(iter(student.model.named_parameters()))
    average = student.evaluated().get_parameter(name)
    assert 0 < (average - weights).abs().max() < 1
    assert (student.checkpoint(TrainState()).ema or {}).keys() == student.model.state_dict().keys()
