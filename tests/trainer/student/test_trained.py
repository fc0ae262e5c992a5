from dataclasses import replace
from pathlib import Path

import pytest
import torch

from store.errors import RunFolderError
from tests.builders.training import small_settings
from trainer.student.checkpoint import Checkpoint, TrainState, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import Weights, load_trained


@pytest.fixture
def checkpoint() -> Checkpoint:
    student = Student(resolve_device(small_settings()), num_classes=5, steps_per_epoch=1)
    return student.checkpoint(TrainState(epoch=3, top1=0.5, best_top1=0.625))


@pytest.fixture
def averaged(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Read in place of any file; its average is all ones."""
    averaged = replace(checkpoint, ema={name: torch.ones_like(value) for name, value in checkpoint.model.items()})
    monkeypatch.setattr("trainer.student.trained.load_checkpoint", lambda _: averaged)
    return averaged


def test_a_loaded_student_has_its_weights_settings_and_results(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    student = load_trained(tmp_path / "best.pt")
    assert (student.num_classes, student.weights, student.epoch, student.top1) == (5, "model", 3, 0.5)
    assert not student.model.training
    assert all(torch.equal(tensor.cpu(), checkpoint.model[name]) for name, tensor in student.model.state_dict().items())


def test_a_student_trained_with_synchronised_norms_is_evaluated_anywhere(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "best.pt", replace(checkpoint, settings={**checkpoint.settings, "sync_norms": True}))
    assert load_trained(tmp_path / "best.pt").settings.sync_norms


def test_weights_within_an_epoch_have_no_accuracy(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step.pt", replace(checkpoint, samples_seen=32))
    assert load_trained(tmp_path / "step.pt").top1 is None


@pytest.mark.parametrize(
    ("trained", "precision"),
    [("float32", "float32"), ("bfloat16", "bfloat16" if torch.cuda.is_available() else "float32")],
)
def test_a_student_trained_in_float32_is_evaluated_in_float32(
    checkpoint: Checkpoint, tmp_path: Path, trained: str, precision: str
) -> None:
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, settings={**checkpoint.settings, "precision": trained}))
    assert load_trained(tmp_path / "a.pt").settings.precision == precision


@pytest.mark.parametrize(("weights", "is_average"), [(None, True), ("ema", True), ("model", False)])
def test_the_moving_average_is_taken_where_there_is_one(
    averaged: Checkpoint, weights: Weights | None, is_average: bool
) -> None:
    student = load_trained(Path("best.pt"), weights)
    assert all(bool((tensor == 1).all()) for tensor in student.model.parameters()) == is_average
    assert student.weights == ("ema" if is_average else "model")
    # The average is what was evaluated: nothing is known of the other weights.
    assert student.top1 == (0.5 if is_average else None)


def test_evaluation_takes_the_moving_average(averaged: Checkpoint) -> None:
    student = load_trained(Path("best.pt"))
    assert all(bool((tensor == 1).all()) for tensor in student.model.parameters())
    assert student.settings.model == "test_resnet"


def test_an_average_that_is_not_there_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    with pytest.raises(RunFolderError, match=r"best\.pt: holds no moving average .*; take the model's weights$"):
        load_trained(tmp_path / "best.pt", "ema")
