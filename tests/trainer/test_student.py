import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch

from store.errors import RunFolderError, SettingsError
from tests.trainer.builders import small_settings
from trainer.device import resolve_device
from trainer.model import build_student
from trainer.optim import build_optimiser, build_scheduler
from trainer.source import Batch
from trainer.student import Student, step_seed


def make_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator),
        boxes=torch.tensor([[0.0, 0.25, 0.5, 1.0]]).repeat(size, 1),
        classes=torch.arange(3).reshape(1, 3, 1, 1).expand(size, 3, 2, 2).to(torch.uint16),
        scores=torch.tensor([9.0, 2.0, 1.0]).reshape(1, 3, 1, 1).expand(size, 3, 2, 2).half(),
        tail=None,
        labels=torch.zeros(size, dtype=torch.int64),
        flips=torch.zeros(size, dtype=torch.bool),
        rows=torch.arange(size),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet19"}, "model='resnet19': timm has no such model; did you mean .*resnet18"),
        ({"model": "hf-hub:somebody/model"}, "timm has no such model"),
        ({"model_args": {"colour": 1}}, r"model_args=\{'colour': 1\}: .*colour"),
        ({"model_args": {"pretrained": True}}, "multiple values for keyword argument 'pretrained'"),
        ({"model": "vit_tiny_patch16_224", "model_args": {}}, r"does not take images of 32 x 32 pixels .*img_size"),
        ({"model_args": {"features_only": True}}, "does not give one logit for each of 5 classes"),
    ],
)
def test_students_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        build_student(small_settings(**changes), 5)
    assert "\n" not in str(caught.value)


def test_a_student_is_the_same_for_the_same_seed() -> None:
    a, b, c = (
        Student(resolve_device(small_settings(seed=seed)), num_classes=5, steps_per_epoch=4) for seed in (0, 0, 1)
    )
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
    student = Student(resolve_device(small_settings(lr=0.02, sched="constant")), num_classes=5, steps_per_epoch=60)
    batch = make_batch()
    losses = [float(student.update(batch, step)) for step in range(60)]
    assert losses[0] > 1.0
    assert losses[-1] < 0.2


def test_flips_mirror_the_images_that_the_student_sees() -> None:
    batch = make_batch()
    mirrored = replace(batch, images=batch.images.flip(-1), flips=torch.ones(8, dtype=torch.bool))
    losses = [
        float(Student(resolve_device(small_settings()), num_classes=5, steps_per_epoch=4).update(part, 0))
        for part in (batch, mirrored, replace(batch, flips=mirrored.flips))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_dropout_depends_on_the_step_alone() -> None:
    """So a resumed run needs no generator's state."""
    settings = resolve_device(small_settings(model_args={"drop_rate": 0.5}))
    student = Student(settings, num_classes=5, steps_per_epoch=4)
    state = copy.deepcopy(student.checkpoint(epoch=0, samples_seen=0, top1=None, best_top1=None))
    losses: list[float] = []
    for step in (2, 2, 3):
        student.restore(copy.deepcopy(state))
        student.model.train()
        torch.rand(17)  # whatever else draws in between
        losses.append(float(student.update(make_batch(), step)))
    assert losses[0] == losses[1] != losses[2]
    assert step_seed(0, 1) != step_seed(1, 0)


def test_a_checkpoint_of_another_student_is_refused() -> None:
    ours, other = (
        Student(resolve_device(small_settings()), num_classes=classes, steps_per_epoch=1) for classes in (5, 6)
    )
    with pytest.raises(RunFolderError, match="the checkpoint does not fit 'test_resnet'"):
        ours.restore(other.checkpoint(epoch=1, samples_seen=1, top1=None, best_top1=None))


def test_asking_for_cuda_where_there_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
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
    student = Student(resolve_device(small_settings(precision="bfloat16")), num_classes=5, steps_per_epoch=1)
    assert torch.isfinite(student.update(make_batch(), 0))


@pytest.mark.gpu
def test_a_student_learns_on_the_gpu_and_its_step_never_waits(cuda: torch.device) -> None:
    student = Student(resolve_device(small_settings(device="auto", lr=0.02)), num_classes=5, steps_per_epoch=100)
    batch = make_batch().to(cuda)
    first = float(student.update(batch, 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 60):
            loss = student.update(batch, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(loss) < first / 2
