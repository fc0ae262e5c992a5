"""Checkpoints as the tools of the field write them: what is taken out of each, and what is refused in one line."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from annotator.teacher.weights import fit_weights, load_weights
from store.errors import TeacherError

Files = Callable[[Path], Path]


def make_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = timm.create_model("test_resnet", num_classes=5)
    return network


def averaged(network: nn.Module) -> ModelEmaV3:
    """A moving average that differs from its network."""
    ema = ModelEmaV3(network)
    with torch.no_grad():
        for tensor in ema.module.parameters():
            tensor.add_(1.0)
    return ema


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


def timm_training(folder: Path, *, with_ema: bool) -> Path:
    """A file of timm's train.py, by its own saver: optimiser, arguments and weights."""
    network = make_network()
    args = Namespace(model="test_resnet", lr=0.1, mean=None, crops=[0.08, 1.0])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    saver = CheckpointSaver(
        model=network,
        optimizer=optimiser,
        args=args,
        model_ema=averaged(network) if with_ema else None,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
    )
    saver.save_checkpoint(epoch=3, metric=71.5)
    return folder / "last.pth.tar"


def lightning(folder: Path) -> Path:
    """The layout of Lightning's Trainer, for a module whose network is its attribute `model`."""
    return saved(folder, {
        "epoch": 9, "global_step": 4500, "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in make_network().state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": None}},
        "optimizer_states": [], "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1},
    })  # fmt: skip


def named(change: Callable[[str], str]) -> Files:
    """Names as a wrapper changes them."""
    return lambda folder: saved(folder, {change(name): tensor for name, tensor in make_network().state_dict().items()})


def swa(folder: Path) -> Path:
    """torch's AveragedModel, as torchvision's reference training keeps it."""
    network = make_network()
    return saved(folder, {"model": make_network(1).state_dict(), "model_ema": AveragedModel(network).state_dict()})


def loaded(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state of a network of other weights after a checkpoint's were loaded, and their origin."""
    network, weights = make_network(7), load_weights(path)
    fit_weights(network, weights)
    return network.state_dict(), weights.origin


@pytest.mark.parametrize(
    ("write", "origin"),
    [
        (lambda folder: timm_training(folder, with_ema=False), "state_dict"),
        (lightning, "state_dict"),
        (swa, "moving average (model_ema)"),
        (named(lambda name: f"module.{name}"), ""),
        (named(lambda name: f"_orig_mod.module.{name}"), ""),
        (named(lambda name: f"module._orig_mod.{name}"), ""),
        (named(lambda name: f"model._orig_mod.module.{name}"), ""),
        (named(lambda name: name.replace("layer1.", "layer1._orig_mod.")), ""),
        (named(lambda name: f"_fsdp_wrapped_module.{name}"), ""),
    ],
)
def test_weights_of_every_tool_are_the_networks_own(tmp_path: Path, write: Files, origin: str) -> None:
    state, found = loaded(write(tmp_path))
    expected = make_network().state_dict()
    assert found == origin
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_moving_average_is_taken_as_timm_takes_it(tmp_path: Path) -> None:
    file = timm_training(tmp_path, with_ema=True)
    state, origin = loaded(file)
    expected = make_network(7)
    timm.models.load_checkpoint(expected, str(saved(tmp_path, without_arguments(file))))
    assert origin == "moving average (state_dict_ema)"
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
    assert not torch.equal(state["fc.bias"], make_network().state_dict()["fc.bias"])


def without_arguments(file: Path) -> dict[str, Any]:
    with torch.serialization.safe_globals([Namespace]):
        content = torch.load(file, weights_only=True)
    return {key: value for key, value in content.items() if key != "args"}


def test_network_whose_own_names_hold_a_wrappers_takes_both(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)
            self.module = nn.Linear(2, 2)

    torch.manual_seed(1)
    for content in (Own().state_dict(), {f"module.{name}": tensor for name, tensor in Own().state_dict().items()}):
        network, weights = Own(), load_weights(saved(tmp_path, content))
        if "model.weight" in content:
            fit_weights(network, weights)
            assert torch.equal(network.model.weight, content["model.weight"])
        else:  # `module.model.weight` could be either of two
            with pytest.raises(TeacherError, match=r"it misses 'model\.bias'"):
                fit_weights(network, weights)


def test_two_networks_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    state = make_network().state_dict()
    both = {f"model.{name}": tensor for name, tensor in state.items()} | {
        f"module.{name}": state[name] for name in state
    }
    with pytest.raises(TeacherError, match=r"model\.pth: holds two tensors for '.*'; save one network's"):
        loaded(saved(tmp_path, both))


class Config:
    """A class of somebody's training script."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer, .* `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "a web page, such as a server sends with a refusal"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"", "an empty file"),
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_other_content_is_called_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TeacherError, match=rf"{name}: not a readable checkpoint: {message}"):
        load_weights(tmp_path / name)


def test_flipped_bit_in_a_tensor_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, make_network().state_dict())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(TeacherError, match=r"model\.pth: .*the checksum of '.*' in it does not match; copy or"):
        load_weights(file)


def test_archive_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, make_network().state_dict())
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(TeacherError, match="a damaged or incomplete archive; copy or download it again"):
        load_weights(file)


@pytest.mark.parametrize("legacy", [False, True])
def test_refused_classes_are_named_and_torchs_advice_is_not_passed_on(tmp_path: Path, legacy: bool) -> None:
    torch.save({"state_dict": {}, "config": Config()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(TeacherError, match=r"a\.pt: holds more than tensors and is not loaded") as info:
        load_weights(tmp_path / "a.pt")
    assert "weights_only" not in str(info.value)
    assert ("Config" in str(info.value)) is not legacy


def test_program_of_torchscript_is_called_so(tmp_path: Path) -> None:
    with torch.warnings.catch_warnings(action="ignore"):  # type: ignore[attr-defined]  # that it is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(TeacherError, match="a TorchScript program; save the state_dict"):
        load_weights(tmp_path / "a.pt")
