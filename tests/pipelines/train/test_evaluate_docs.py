"""What docs/evaluate.md loads with other libraries is the student; that its commands run is tests/docs/."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.paths import DOCS
from tests.builders.training import small_settings
from trainer.student.checkpoint import TrainState, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import export_student, load_trained

TEXT = (DOCS / "evaluate.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best.pt` of a ResNet-18 with random weights, exported to `student.safetensors`."""
    folder = tmp_path_factory.mktemp("docs")
    settings = resolve_device(small_settings(model="resnet18", batch_size=2))
    student = Student(settings, num_classes=1000, steps_per_epoch=1)
    save_checkpoint(folder / "best.pt", student.checkpoint(TrainState(epoch=1, top1=None, best_top1=None)))
    export_student(folder / "best.pt", folder / "student.safetensors")
    return folder


def test_exported_weights_are_used_as_the_docs_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        exec(block, found)
    ours = load_trained(folder / "best.pt").model.cpu()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits, features = ours(images), ours.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
        assert torch.equal(found["student"].eval()(images), logits)
        assert torch.equal(found["resnet"].eval()(images), logits)
        for level, expected in zip(found["backbone"].eval()(images), features, strict=True):
            assert torch.equal(level, expected)
        # Their last maps are the same, and the detector goes on from them.
        body = found["detector"].eval().backbone.body
        assert torch.equal(body(images)["3"], features[-1])
        assert [sorted(boxes) for boxes in found["detector"](list(images))] == [["boxes", "labels", "scores"]] * 2
