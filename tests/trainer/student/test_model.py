import pytest
import torch
from torch import nn

from store.errors import SettingsError
from tests.builders.training import small_settings
from trainer.student.device import memory_format, resolve_device
from trainer.student.model import build_student, synchronise_norms
from trainer.student.student import Student


def test_last_norms_start_at_zero_or_one_and_nothing_else_differs() -> None:
    states = []
    for zero_init_last in (True, False):
        torch.manual_seed(0)
        states.append(build_student(small_settings(zero_init_last=zero_init_last), 5).state_dict())
    differing = [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])]
    assert differing
    assert all(not states[0][name].any() and (states[1][name] == 1).all() for name in differing)
    assert all(name.endswith(("bn2.weight", "bn3.weight")) for name in differing)


@pytest.mark.parametrize("model", ["test_vit", "test_convnext", "test_efficientnet"])
def test_networks_without_such_norms_take_the_setting(model: str) -> None:
    build_student(small_settings(model=model, zero_init_last=False), 5)


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_synchronised_norms_keep_weights_names_and_activations(model: str) -> None:
    plain = build_student(small_settings(model=model), 5).eval()
    images, names = torch.randn(2, 3, 32, 32), list(plain.state_dict())
    weights, logits = [id(weights) for weights in plain.parameters()], plain(images)
    synchronised = synchronise_norms(plain)
    assert not [module for module in synchronised.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [module for module in synchronised.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert list(synchronised.state_dict()) == names
    assert [id(weights) for weights in synchronised.parameters()] == weights
    assert torch.equal(synchronised(images), logits)


def test_synchronised_norms_are_refused_on_a_cpu() -> None:
    settings = resolve_device(small_settings(sync_norms=True))
    with pytest.raises(
        SettingsError, match="sync_norms=true: torch's SyncBatchNorm works on GPUs only; set sync_norms=f"
    ):
        Student(settings, num_classes=5, steps_per_epoch=1)


def test_torch_still_has_no_synchronised_norms_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once this fails, the setting need not be refused there."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
        nn.SyncBatchNorm(3)(torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("device", "precision", "layout"),
    [
        ("cpu", "float32", torch.contiguous_format),
        ("cpu", "bfloat16", torch.channels_last),
        ("cuda", "float32", torch.channels_last),
        ("cuda", "bfloat16", torch.channels_last),
    ],
)
def test_only_float32_on_a_cpu_is_laid_out_channels_first(
    device: str, precision: str, layout: torch.memory_format
) -> None:
    assert memory_format(small_settings(device=device, precision=precision)) is layout
