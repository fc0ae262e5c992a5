from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from store.errors import ImageError, RunFolderError, ShardError, TrainingError
from store.shards.index import index_shard
from tests.builders.training import Dataset, png, small_settings, write_shard, write_tar
from trainer.evaluation.evaluate import evaluate, open_val, predict
from trainer.settings import settings_to_json
from trainer.student.checkpoint import TrainState, save_checkpoint
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import load_trained

SETTINGS = resolve_device(small_settings(batch_size=8))


class Fixed(nn.Module):
    """Says the same of every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.repeat(len(images), 1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_come_in_the_shards_order_with_the_last_part_batch(dataset: Dataset, workers: int) -> None:
    val = open_val(dataset.val, 5)
    parts = list(predict(Fixed([0, 1, 2, 3, 4]), val, resolve_device(small_settings(batch_size=8, workers=workers))))
    samples = index_shard(dataset.val[0]).samples
    assert [len(part.keys) for part in parts] == [8, 8, 4]
    assert [key for part in parts for key in part.keys] == [sample.key for sample in samples]
    assert torch.cat([part.labels for part in parts]).tolist() == [sample.label for sample in samples]
    assert parts[0].logits.shape == (8, 5)


def test_hits_are_counted_exactly(tmp_path: Path) -> None:
    """Labels go round 0 to 4: 7, 7, 7, 6 and 6 of 33."""
    val = open_val([write_shard(tmp_path / "val.tar", 33)], 9)
    accuracy = evaluate(Fixed([9, 8, 0, 6, 1, 5, 4, 3, 2]), val, SETTINGS)
    assert accuracy is not None
    assert (accuracy.samples, accuracy.top1_hits, accuracy.top5_hits) == (33, 7, 20)
    assert (accuracy.top1, accuracy.top5) == (7 / 33, 20 / 33)


def test_fewer_than_five_classes_make_top5_all_of_them(tmp_path: Path) -> None:
    val = open_val([write_tar(tmp_path / "v.tar", [("a.png", png(0)), ("a.cls", b"1")])], 2)
    accuracy = evaluate(Fixed([1, 0]), val, SETTINGS)
    assert accuracy is not None
    assert (accuracy.top1_hits, accuracy.top5_hits) == (0, 1)


def test_batches_do_not_change_what_is_predicted(dataset: Dataset) -> None:
    model = Student(SETTINGS, num_classes=5, steps_per_epoch=1).model
    val = open_val(dataset.val, 5)
    whole, parts = (
        torch.cat([part.logits for part in predict(model, val, resolve_device(small_settings(batch_size=size)))])
        for size in (20, 3)
    )
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", png(0)), ("a.cls", b"0"), ("b.png", png(1))], r"v.tar: 'b' has no .cls label"),
        ([("a.png", png(0)), ("a.cls", b"5")], r"v.tar: 'a' has label 5; the student knows 0 to 4"),
        ([], r"v.tar: holds no samples"),
    ],
)
def test_validation_sets_that_cannot_be_scored_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    shard = write_tar(tmp_path / "v.tar", members)
    with pytest.raises(ShardError, match=message):
        open_val([shard], 5)


def test_no_validation_shards_are_refused() -> None:
    with pytest.raises(ShardError, match="no validation shards given"):
        open_val([], 5)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_validation_image_is_an_error_not_a_gap(tmp_path: Path, workers: int) -> None:
    members = [("a.png", png(0)), ("a.cls", b"0"), ("b.jpg", b"\xff\xd8\xff no"), ("b.cls", b"1")]
    val = open_val([write_tar(tmp_path / "v.tar", members)], 5)
    with pytest.raises(ImageError, match=r"v.tar: 'b': .*validation images are never skipped") as caught:
        evaluate(Fixed([0] * 5), val, resolve_device(small_settings(workers=workers)))
    assert "\n" not in str(caught.value)


def test_a_saved_student_predicts_as_before(dataset: Dataset, tmp_path: Path) -> None:
    student = Student(SETTINGS, num_classes=5, steps_per_epoch=1)
    save_checkpoint(tmp_path / "last.pt", student.checkpoint(TrainState(epoch=1)))
    loaded = load_trained(tmp_path / "last.pt")
    model, settings = loaded.model, loaded.settings
    val = open_val(dataset.val, 5)
    device = torch.device(settings.device)
    ours = next(predict(model.to(device), val, settings)).logits
    theirs = next(predict(student.model, val, SETTINGS)).logits
    tolerance = 1e-6 if settings.device == "cpu" else 0.1  # bfloat16 on a GPU
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_a_validation_shard_that_vanished_is_named(tmp_path: Path) -> None:
    val = open_val([write_shard(tmp_path / "v.tar", 3)], 5)
    (tmp_path / "v.tar").unlink()
    with pytest.raises(ShardError, match=r"v.tar: cannot be read: No such file"):
        evaluate(Fixed([0] * 5), val, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 6}, "size mismatch"),
        ({"model": {1: 2}}, "last.pt: holds no student"),
        ({"model": {"fc.weight": "text"}}, "last.pt: holds no student"),
        ({"settings": {}}, "settings without"),
        ({"settings": settings_to_json(SETTINGS) | {"workers": 10**9}}, "workers=1000000000: expected 0 to 64"),
        ({"settings": settings_to_json(SETTINGS) | {"model_args": {"checkpoint_path": "/x"}}}, "checkpoint_path"),
    ],
)
def test_a_checkpoint_without_a_usable_student_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    checkpoint = Student(SETTINGS, num_classes=5, steps_per_epoch=1).checkpoint(TrainState(epoch=1))
    save_checkpoint(tmp_path / "last.pt", replace(checkpoint, **changes))
    with pytest.raises(RunFolderError, match=r"last.pt: holds no student that can be used here: ") as caught:
        load_trained(tmp_path / "last.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_too_thin_to_be_resized_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    members = [("a.png", png(0, height=1, width=100_000)), ("a.cls", b"0")]
    val = open_val([write_tar(tmp_path / "v.tar", members)], 5)
    with pytest.raises(ImageError, match=r"v.tar: 'a': an image of 100000 x 1 pixels, .* resize to 3200000 x 32"):
        evaluate(Fixed([0] * 5), val, SETTINGS)


def test_a_full_device_memory_is_a_training_error(dataset: Dataset) -> None:
    class Greedy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="the device's memory is full; lower batch_size"):
        evaluate(Greedy(), open_val(dataset.val, 5), SETTINGS)


def test_evaluation_stops_before_the_next_batch_when_asked_to(dataset: Dataset) -> None:
    seen: list[int] = []
    model = Fixed([0] * 5)
    model.register_forward_hook(lambda *_: seen.append(1))
    asked = iter([False, False, True])
    assert evaluate(model, open_val(dataset.val, 5), SETTINGS, should_stop=lambda: next(asked)) is None
    assert len(seen) == 2


def test_evaluation_batches_have_the_size_of_a_rank_s_part_of_a_training_batch(dataset: Dataset) -> None:
    settings = resolve_device(small_settings(batch_size=8, accumulate=4))
    parts = list(predict(Fixed([0] * 5), open_val(dataset.val, 5), settings))
    assert {len(part.keys) for part in parts} == {2}
