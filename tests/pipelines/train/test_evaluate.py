import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from pipelines.train.__main__ import main
from tests.builders.paths import REAL
from tests.builders.training import NUM_CLASSES, png, small_settings, write_shard, write_tar
from trainer.evaluation.evaluate import Accuracy, evaluate, open_val
from trainer.student.checkpoint import TrainState, load_checkpoint, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.model import pretrained_settings
from trainer.student.student import Student
from trainer.student.trained import load_trained

COUNT = 23
TIMM_MODEL = ("--model", "test_resnet", "--num-classes", str(NUM_CLASSES))
PREPROCESSING = ("--image-size", "32", "--crop-pct", "1", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`val.tar`, `best.pt` of a student that was trained for it a little, and the same weights in other files."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_shard(folder / "val.tar", COUNT)
    student = Student(resolve_device(small_settings()), num_classes=NUM_CLASSES, steps_per_epoch=1)
    save_checkpoint(folder / "best.pt", student.checkpoint(TrainState(epoch=3, top1=0.5, best_top1=0.5)))
    state = {name: tensor.cpu() for name, tensor in student.model.state_dict().items()}
    published = {
        "epoch": 299,
        "arch": "resnet",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "best_acc1": torch.tensor(78.9),
        "optimizer": student.optimiser.state_dict(),
    }
    torch.save(published, folder / "published.pth")
    torch.save({name: tensor for name, tensor in state.items() if name != "fc.bias"}, folder / "short.pth")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "weights.safetensors")
    return folder


def invoke(folder: Path, checkpoint: str, *more: str, val: str = "val.tar") -> Result:
    arguments = ["evaluate", "--checkpoint", str(folder / checkpoint), "--val", str(folder / val), "--workers", "0"]
    return CliRunner().invoke(main, [*arguments, *more])


def counted(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def expected(folder: Path) -> Accuracy:
    student = load_trained(folder / "best.pt")
    accuracy = evaluate(student.model, open_val([folder / "val.tar"], NUM_CLASSES), student.settings)
    assert accuracy is not None
    return accuracy


def assert_one_line_error(result: Result, text: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_json_holds_everything_that_was_counted(folder: Path) -> None:
    found, accuracy = counted(invoke(folder, "best.pt", "--json")), expected(folder)
    assert (found["samples"], found["top1_hits"], found["top5_hits"]) == (COUNT, accuracy.top1_hits, COUNT)
    assert (found["top1"], found["top5"], found["real"]) == (accuracy.top1, 1.0, None)
    assert (found["model"], found["weights"]) == ("test_resnet", "weights after 3 epochs")
    assert (found["image_size"], found["crop_pct"], found["interpolation"]) == (32, 1.0, "bilinear")
    assert [(row["class"], row["samples"]) for row in found["classes"]] == [(0, 5), (1, 5), (2, 5), (3, 4), (4, 4)]
    assert sum(row["top1_hits"] for row in found["classes"]) == accuracy.top1_hits


def test_the_moving_average_is_what_is_evaluated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    checkpoint = load_checkpoint(folder / "best.pt")
    zeros = {name: torch.zeros_like(tensor) for name, tensor in checkpoint.model.items()}
    zeros["fc.bias"][2] = 1
    monkeypatch.setattr("pipelines.train.evaluate.load_checkpoint", lambda _: replace(checkpoint, ema=zeros))
    found = counted(invoke(folder, "best.pt", "--json"))
    assert found["weights"] == "moving average after 3 epochs"
    assert [row["top1_hits"] for row in found["classes"]] == [0, 0, 5, 0, 0]


@pytest.mark.parametrize(
    ("checkpoint", "origin"),
    [("published.pth", "given weights, state_dict"), ("weights.safetensors", "given weights")],
)
def test_weights_in_foreign_formats_give_the_same_counts(folder: Path, checkpoint: str, origin: str) -> None:
    found = counted(invoke(folder, checkpoint, *TIMM_MODEL, *PREPROCESSING, "--json"))
    assert found["top1_hits"] == expected(folder).top1_hits
    assert (found["weights"], found["precision"]) == (origin, "float32")


def test_timm_says_how_images_are_prepared_unless_it_is_given(folder: Path) -> None:
    found = counted(invoke(folder, "published.pth", *TIMM_MODEL, "--json"))
    assert (found["image_size"], found["crop_pct"], found["interpolation"]) == (160, 0.95, "bilinear")
    assert (found["mean"], found["std"]) == ([0.5] * 3, [0.5] * 3)
    found = counted(
        invoke(folder, "published.pth", *TIMM_MODEL, *PREPROCESSING, "--interpolation", "bicubic", "--json")
    )
    assert (found["image_size"], found["crop_pct"], found["interpolation"]) == (32, 1, "bicubic")
    assert (found["mean"], found["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_weights_from_elsewhere_are_evaluated_in_float32() -> None:
    settings, num_classes = pretrained_settings("test_resnet", {}, {"val_size": 64})
    assert (settings.precision, settings.val_size, settings.image_size, num_classes) == ("float32", 64, 64, 1000)


def test_a_student_of_ours_may_see_other_images_than_it_was_trained_with(folder: Path) -> None:
    found = counted(invoke(folder, "best.pt", "--image-size", "64", "--crop-pct", "0.5", "--json"))
    assert (found["image_size"], found["crop_pct"], found["mean"]) == (64, 0.5, [0.485, 0.456, 0.406])


def test_the_summary_is_aligned_and_names_cannot_steer_the_terminal(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthr\x1b[31mee\nfour\nfive\n")
    result = invoke(folder, "best.pt", "--per-class", "--class-names", str(names), "--batch-size", "5")
    hits = expected(folder).top1_hits
    lines = result.stdout.splitlines()
    assert lines[0] == "class  samples           top-1           top-5"
    assert lines[3].startswith("    2        5  ")
    assert lines[3].endswith("       5  100.0%  thr\\x1b[31mee")
    assert lines[6:9] == [
        "",
        f"{folder / 'best.pt'}: test_resnet, weights after 3 epochs",
        "23 images in 1 shard; 32 px, crop 1, bilinear, float32",
    ]
    assert lines[9:] == [f"top-1  {hits / COUNT:7.2%}  {hits} of 23", "top-5  100.00%  23 of 23"]
    assert [line.partition(",")[0] for line in result.stderr.splitlines()] == [
        f"{done} of 23 images" for done in (4, 9, 13, 18, 23)
    ]


def imagenet_student(folder: Path) -> None:
    """A student that always says 7, then 0, 1, 2 and 3; and five of ImageNet's validation images."""
    network = timm.create_model("test_resnet", num_classes=1000)
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    state["fc.bias"] = -torch.arange(1000.0)
    state["fc.bias"][7] = 1
    save_file(state, folder / "seven.safetensors")
    labels = (7, 7, 1, 2, 500)
    members = [
        (f"val/ILSVRC2012_val_{i:08}.{extension}", data)
        for i, label in enumerate(labels, 1)
        for extension, data in (("png", png(i)), ("cls", str(label).encode()))
    ]
    write_tar(folder / "imagenet.tar", members)
    (folder / "real.json").write_text(json.dumps([[7], [], [1, 7], [2], [7], *[[0]] * 49_995]))


def test_real_accuracy_counts_only_images_with_real_labels(tmp_path: Path) -> None:
    imagenet_student(tmp_path)
    more = ("--model", "test_resnet", "--real", str(tmp_path / "real.json"))
    result = invoke(tmp_path, "seven.safetensors", *more, val="imagenet.tar")
    assert result.stdout.splitlines()[2:] == [
        "top-1   40.00%  2 of 5",
        "top-5   80.00%  4 of 5",
        "ReaL    75.00%  3 of 4 that have ReaL labels",
    ]
    found = counted(invoke(tmp_path, "seven.safetensors", *more, "--json", val="imagenet.tar"))
    assert found["real"] == {"samples": 4, "hits": 3, "accuracy": 0.75}


def test_images_none_of_which_has_real_labels_are_no_division_by_zero(tmp_path: Path) -> None:
    imagenet_student(tmp_path)
    (tmp_path / "real.json").write_text(json.dumps([[]] * 50_000))
    more = ("--model", "test_resnet", "--real", str(tmp_path / "real.json"))
    result = invoke(tmp_path, "seven.safetensors", *more, val="imagenet.tar")
    assert result.stdout.splitlines()[-1] == "ReaL         -  0 of 0 that have ReaL labels"
    assert counted(invoke(tmp_path, "seven.safetensors", *more, "--json", val="imagenet.tar"))["real"] == {
        "samples": 0, "hits": 0, "accuracy": None,
    }  # fmt: skip


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


def write_bad(folder: Path) -> None:
    (folder / "garbage.pt").write_bytes(b"garbage" * 99)
    (folder / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"state_dict": Evil()}, folder / "evil.pth")
    write_shard(folder / "unlabelled.tar", 3, labelled=False)
    write_tar(folder / "empty.tar", [])
    write_tar(folder / "six.tar", [("a.png", png(0)), ("a.cls", b"6")])
    (folder / "names.txt").write_text("one\ntwo\n")
    (folder / "real.json").write_text("{}")


@pytest.mark.parametrize(
    ("checkpoint", "more", "val", "message"),
    [
        ("none.pt", (), "val.tar", "none.pt: there is no checkpoint"),
        ("garbage.pt", (), "val.tar", "A checkpoint from elsewhere needs --model NAME"),
        ("published.pth", (), "val.tar", "A checkpoint from elsewhere needs --model NAME"),
        ("evil.pt", (), "val.tar", "evil.pt: damaged, or not a checkpoint"),
        ("evil.pt", TIMM_MODEL, "val.tar", "evil.pt: holds more than tensors"),
        ("evil.pth", TIMM_MODEL, "val.tar", "evil.pth: holds more than tensors and is not loaded"),
        ("garbage.pt", TIMM_MODEL, "val.tar", "garbage.pt: "),
        ("none.pt", TIMM_MODEL, "val.tar", "none.pt: no such checkpoint"),
        ("published.pth", ("--model", "test_resnet"), "val.tar", "does not fit the test_resnet with 1,000 classes: it "
         "has other shapes: 'fc.bias (5,), expected (1000,)'"),
        ("short.pth", TIMM_MODEL, "val.tar", "does not fit the test_resnet with 5 classes: it misses 'fc.bias'"),
        ("published.pth", ("--model", "test_resnte"), "val.tar", "did you mean test_resnet"),
        ("published.pth", ("--model", "resnet18.nobody"), "val.tar", "Invalid pretrained tag"),
        ("published.pth", (*TIMM_MODEL, "--model-arg", "wings=2"), "val.tar", "unexpected keyword argument 'wings'"),
        ("published.pth", (*TIMM_MODEL, "--model-arg", "pretrained=True"), "val.tar", "'pretrained' cannot be set"),
        ("published.pth", (*TIMM_MODEL, "--std", "0"), "val.tar", "std=(0.0, 0.0, 0.0): expected 3 numbers from"),
        ("best.pt", ("--std", "0"), "val.tar", "error: std=(0.0, 0.0, 0.0): expected 3 numbers from"),
        ("best.pt", (), "unlabelled.tar", "unlabelled.tar: 's00000' has no .cls label"),
        ("best.pt", (), "six.tar", "'a' has label 6; the student knows 0 to 4"),
        ("best.pt", (), "empty.tar", "empty.tar: holds no samples"),
        ("best.pt", (), "nothing-*.tar", "the pattern matches no file"),
        ("best.pt", ("--class-names", "names.txt"), "val.tar", "names.txt: 2 names for 5 classes"),
        ("best.pt", ("--real", "real.json"), "val.tar", "real.json: expected a list of 50,000 lists"),
    ],
)  # fmt: skip
def test_errors_of_evaluate_are_one_line(
    folder: Path,
    checkpoint: str,
    more: tuple[str, ...],
    val: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_bad(folder)
    monkeypatch.chdir(folder)
    assert_one_line_error(invoke(folder, checkpoint, *more, val=val), message)
    assert not (folder / "pwned").exists()


def test_a_size_that_the_student_cannot_take_is_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "val.tar", 2)
    settings = resolve_device(small_settings(model="test_vit", image_size=160, val_size=160))
    student = Student(settings, num_classes=NUM_CLASSES, steps_per_epoch=1)
    save_checkpoint(tmp_path / "best.pt", student.checkpoint(TrainState(epoch=1, top1=None, best_top1=None)))
    assert_one_line_error(invoke(tmp_path, "best.pt", "--image-size", "100"), "does not take images of 100 x 100")


@pytest.mark.parametrize("more", [("--num-classes", "5"), ("--model-arg", "a=1")])
def test_a_networks_details_need_its_name(folder: Path, more: tuple[str, ...]) -> None:
    result = invoke(folder, "best.pt", *more)
    assert result.exit_code == 2
    assert "need --model" in result.stderr


def test_every_option_has_help() -> None:
    assert all(parameter.help for parameter in main.commands["evaluate"].params if hasattr(parameter, "help"))


@pytest.mark.slow
def test_torchrun_counts_what_one_process_counts_and_prints_once(folder: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "pipelines.train", "evaluate", "--json", "--workers", "0", "--batch-size", "4"),
        *("--checkpoint", str(folder / "best.pt"), "--val", str(folder / "val.tar")),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == counted(invoke(folder, "best.pt", "--json"))
    shown = [line for line in done.stderr.splitlines() if "images/s" in line]
    assert [line.partition(" images")[0] for line in shown] == ["7 of 23", "15 of 23", "23 of 23"]  # 2 x 4 at once


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real photographs and teacher are not here")
def test_a_real_classifier_is_about_as_often_right_as_is_known() -> None:
    """89.4 % on a thousand such photographs; these 128 gave 118 hits, 92.2 %."""
    named = ("--model", "mobilenetv2_100", "--model-arg", "pad_type=same", "--mean", "0.5", "--std", "0.5")
    more = (*named, "--crop-pct", "0.875", "--json")
    found = counted(
        invoke(REAL, "mobilenetv2_100_same.fp16.safetensors", *more, val="imagenet-sample-{0000..0001}.tar")
    )
    assert (found["samples"], found["image_size"]) == (128, 224)
    assert found["top1"] > 0.8
    assert found["top5"] > 0.95
