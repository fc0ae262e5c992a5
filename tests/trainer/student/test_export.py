import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pipelines.train.__main__ import main
from store.errors import RunFolderError
from tests.builders.training import small_settings
from trainer.student.checkpoint import Checkpoint, TrainState, load_checkpoint, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import Weights, export_student, load_trained, plain_tensors

NUM_CLASSES = 7
ARGS = {"drop_rate": 0.1, "stem_type": "deep"}


def write_checkpoint(file: Path, model: str = "test_resnet") -> Path:
    model_args = ARGS if model == "test_resnet" else {}
    settings = resolve_device(small_settings(model=model, model_args=model_args, val_crop_pct=0.875))
    student = Student(settings, num_classes=NUM_CLASSES, steps_per_epoch=1)
    save_checkpoint(file, student.checkpoint(TrainState(epoch=3, top1=0.5, best_top1=0.5)))
    return file


@pytest.fixture
def best(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "best.pt")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@torch.inference_mode()
def test_timm_gives_the_same_logits(best: Path, tmp_path: Path) -> None:
    export_student(best, tmp_path / "s.safetensors")
    images = torch.randn(2, 3, 64, 64)
    file = str(tmp_path / "s.safetensors")
    theirs = timm.create_model("test_resnet", num_classes=NUM_CLASSES, checkpoint_path=file, **ARGS).eval()
    assert torch.equal(theirs(images), load_trained(best).model.cpu()(images))


@pytest.mark.parametrize("model", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_timms_feature_pyramid_is_that_of_the_student(tmp_path: Path, model: str) -> None:
    checkpoint, file = write_checkpoint(tmp_path / "best.pt", model), tmp_path / "s.safetensors"
    student = export_student(checkpoint, file).model.cpu()
    images = torch.randn(2, 3, 64, 64)
    backbone = timm.create_model(
        model, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, features_only=True,
        **(ARGS if model == "test_resnet" else {}),
    ).eval()  # fmt: skip
    with torch.inference_mode():
        pyramid = backbone(images)
        everything = student.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    assert len(pyramid) >= 4
    for features in pyramid:
        assert any(features.shape == other.shape and torch.equal(features, other) for other in everything)


def test_the_metadata_says_how_to_use_the_weights(best: Path, tmp_path: Path) -> None:
    export_student(best, tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        found = file.metadata()
    assert {name: json.loads(found.pop(name)) for name in ("model_args", "mean", "std")} == {
        "model_args": ARGS, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert found == {
        "format": "pt", "architecture": "test_resnet", "num_classes": "7", "image_size": "32", "crop_pct": "0.875",
        "interpolation": "bilinear", "weights": "model", "epoch": "3", "top1": "0.5",
    }  # fmt: skip


@pytest.mark.parametrize(("weights", "value"), [(None, 1.0), ("ema", 1.0), ("model", None)])
def test_the_moving_average_is_exported_where_there_is_one(
    best: Path, tmp_path: Path, weights: Weights | None, value: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint: Checkpoint = load_checkpoint(best)
    ones = {name: torch.ones_like(tensor) for name, tensor in checkpoint.model.items()}
    monkeypatch.setattr("trainer.student.trained.load_checkpoint", lambda _: replace(checkpoint, ema=ones))
    export_student(best, tmp_path / "s.safetensors", weights)
    found = load_file(tmp_path / "s.safetensors")
    expected = checkpoint.model if value is None else ones
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Tied(nn.Module):
    """Weights that share memory, and some that do not lie in order, as channels_last does to them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)


def test_exported_tensors_are_contiguous_and_share_nothing() -> None:
    model = Tied()
    assert not model.conv.weight.is_contiguous()
    tensors = plain_tensors(model)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


def test_nothing_is_ever_overwritten(best: Path, tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").write_bytes(b"mine")
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    for name in ("s", "link"):
        with pytest.raises(RunFolderError, match=rf"{name}\.safetensors: exists already; choose another name"):
            export_student(best, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "s.safetensors").read_bytes() == b"mine"


def test_a_failed_write_leaves_no_file(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunFolderError, match=r"s\.safetensors: cannot be written: No space left on device"):
        export_student(best, tmp_path / "s.safetensors")
    assert not (tmp_path / "s.safetensors").exists()


def test_the_command_prints_the_exported_model_and_accuracy(best: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    result = invoke("--checkpoint", best, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: test_resnet with 7 classes, weights after 3 epochs, top-1 50.00%\n"
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "s.safetensors"]


@pytest.mark.parametrize(
    ("checkpoint", "out", "more", "message"),
    [
        ("none.pt", "s.safetensors", (), "none.pt: there is no checkpoint"),
        ("bad.pt", "s.safetensors", (), "bad.pt: damaged, or not a checkpoint"),
        ("best.pt", "s.pth", (), "s.pth: the name must end in .safetensors"),
        ("best.pt", "best.pt/s.safetensors", (), "s.safetensors: cannot be written: Not a directory"),
        ("best.pt", "none/s.safetensors", (), "s.safetensors: cannot be written: No such file or directory"),
        ("best.pt", "s.safetensors", ("--weights", "ema"), "best.pt: holds no moving average"),
    ],
)
def test_errors_of_export_are_one_line(
    best: Path, tmp_path: Path, checkpoint: str, out: str, more: tuple[str, ...], message: str
) -> None:
    (tmp_path / "bad.pt").write_bytes(b"bad")
    result = invoke("--checkpoint", tmp_path / checkpoint, "--out", tmp_path / out, *more)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.output
    assert message in result.stderr


def test_every_option_has_help() -> None:
    assert all(parameter.help for parameter in main.commands["export"].params if hasattr(parameter, "help"))
