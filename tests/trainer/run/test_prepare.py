"""Checks before training: data, settings and folders, also on several ranks and after a restart by torchrun."""

import dataclasses
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import ChangedShardError, PeerError, RunFolderError, SettingsError, TrainingError
from tests.builders.ranks import on_ranks
from tests.builders.training import Dataset, Recorder, label_shard, make_dataset, run, small_settings, write_shard
from trainer.distributed import Ranks
from trainer.evaluation.evaluate import open_val, predict
from trainer.run.prepare import open_folder, prepare
from trainer.student.checkpoint import TrainState, load_checkpoint, save_checkpoint, step_checkpoints
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.student.trained import load_trained

SETTINGS = resolve_device(small_settings())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("prepare"), (70, 10, 48))


def prepare_in(data: Dataset, folders: list[Path], counts: list[int], ranks: Ranks) -> None:
    """Start or resume a run in this rank's own folder, with so many of the shards."""
    settings = resolve_device(small_settings(epochs=1))
    shards = data.shards[: counts[ranks.rank]]
    prepared = prepare(settings, shards=shards, labels=data.labels, val_shards=[], ranks=ranks, custom_targets=None)
    open_folder(folders[ranks.rank], prepared, ranks, resume=True)


def prepare_with_one_full_device(data: Dataset, ranks: Ranks) -> None:
    if ranks.rank == 1:
        Student._update_blank = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))  # type: ignore[method-assign]
    prepare(SETTINGS, shards=data.shards, labels=data.labels, val_shards=[], ranks=ranks, custom_targets=None)


def gradients(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Of one update in two parts; the network has no statistics over a batch."""
    settings = resolve_device(small_settings(accumulate=2, model="test_vit", image_size=160))
    torch.manual_seed(0)
    student = Student(settings, num_classes=5, steps_per_epoch=4, ranks=ranks)
    student.join()
    torch.manual_seed(0)
    images, targets = torch.rand(8, 3, 160, 160), torch.rand(8, 5).softmax(1)
    student._gradients(*(values.chunk(ranks.world)[ranks.rank] for values in (images, targets)))
    return {name: weight.grad for name, weight in student.model.named_parameters() if weight.grad is not None}


def test_ranks_with_different_shards_are_refused_before_training(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    work = partial(prepare_in, data, 2 * [tmp_path / "run"], [3, 2])
    first, second = on_ranks(2, work, tmp_path, method="spawn")
    assert isinstance(first, RunFolderError)
    assert "the ranks were given different settings, shards or labels" in str(first)
    assert isinstance(second, PeerError)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("other", ["position", "weights"])
def test_ranks_with_different_checkpoints_are_refused_before_training(
    data: Dataset, tmp_path: Path, other: str
) -> None:
    """As with a folder of the same name on each machine."""
    folders = [tmp_path / f"run{rank}" for rank in range(2)]
    for folder in folders:
        run(data, folder, epochs=1, val=False)
    file = step_checkpoints(folders[1])[-1]
    if other == "position":
        file.unlink()
        (folders[1] / "metrics.jsonl").unlink()
    else:
        checkpoint = load_checkpoint(file)
        model = {name: tensor + 1 for name, tensor in checkpoint.model.items()}
        save_checkpoint(file, dataclasses.replace(checkpoint, model=model))
    first, second = on_ranks(2, partial(prepare_in, data, folders, [3, 3]), tmp_path, method="spawn")
    assert isinstance(first, RunFolderError)
    assert "the ranks found different checkpoints there; all of them need the same folder" in str(first)
    assert isinstance(second, PeerError)


def test_a_student_that_one_rank_cannot_build_ends_all(data: Dataset, tmp_path: Path) -> None:
    first, second = on_ranks(2, partial(prepare_with_one_full_device, data), tmp_path, method="spawn")
    assert isinstance(first, PeerError)
    assert "full" in str(second)


def test_accumulated_updates_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    """No gradients are lost though the ranks average them only with the last part."""
    alone = gradients(Ranks())
    for found in on_ranks(2, gradients, tmp_path, method="spawn"):
        assert found.keys() == alone.keys() != set()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, alone[name], rtol=1e-3, atol=1e-6)


def launched(patch: pytest.MonkeyPatch, launch: str, restarts: int) -> None:
    patch.setenv("TORCHELASTIC_RUN_ID", launch)
    patch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sched_args": {"noise": 0.1, "noise_pct": 0}}, "noise is not taken"),
        ({"sched_args": {"cycle_mul": 0}}, "math domain error at update"),
        ({"sched": "step", "sched_args": {"decay_epochs": 0}}, "zero at update|division"),
        ({"sched": "step", "sched_args": {"decay_epochs": 1, "decay_rate": -5}}, "the rate is -"),
        ({"sched": "poly", "sched_args": {"decay_rate": 0.5, "k_decay": -1}}, "sched_args=.* at update"),
        ({"sched": "multistep", "sched_args": {"decay_milestones": ["a"]}}, "sched_args=.* at update"),
    ],
)
def test_schedules_that_cannot_be_computed_are_refused_before_training(changes: dict[str, Any], message: str) -> None:
    settings = resolve_device(small_settings(epochs=3, warmup_epochs=1, **changes))
    with pytest.raises(SettingsError, match=message):
        Student(settings, num_classes=5, steps_per_epoch=4)


def test_parts_of_an_update_are_equal() -> None:
    """Statistics of a last part of one image would fail in the middle of a run."""
    settings = resolve_device(small_settings(batch_size=20, accumulate=4))
    with pytest.raises(SettingsError, match="accumulate=4: each rank's 10 images of a batch cannot be divided"):
        Student(settings, num_classes=5, steps_per_epoch=4, ranks=Ranks(rank=0, world=2))


@pytest.mark.parametrize("kind", [torch.nan, torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_not_finite_floats_are_refused(tmp_path: Path, kind: Any) -> None:
    student = Student(SETTINGS, num_classes=5, steps_per_epoch=1)
    checkpoint = student.checkpoint(TrainState(epoch=1))
    name = next(iter(checkpoint.model))
    spoilt = checkpoint.model[name].to(kind) if isinstance(kind, torch.dtype) else checkpoint.model[name] * kind
    save_checkpoint(tmp_path / "a.pt", dataclasses.replace(checkpoint, model={**checkpoint.model, name: spoilt}))
    with pytest.raises(RunFolderError, match=r"a.pt: holds no student .*(not finite|holds torch)"):
        load_trained(tmp_path / "a.pt")


@pytest.mark.parametrize("changed", ["labels", "val"])
def test_a_run_is_not_resumed_with_changed_data_of_the_same_names(tmp_path: Path, changed: str) -> None:
    data = make_dataset(tmp_path)
    run(data, tmp_path / "run", epochs=1)
    if changed == "val":
        write_shard(data.val[0], 20, first=90_001)
    else:
        write_shard(data.shards[0], 70, first=500)
        shutil.rmtree(data.labels / "train-0")
        label_shard(data.labels, data.shards[0])
    with pytest.raises(RunFolderError, match=f"{changed}: .* have changed since then"):
        run(data, tmp_path / "run", resume=True, epochs=1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_validation_shard_that_is_replaced_is_not_scored_with_the_old_labels(
    tmp_path: Path, workers: int, *, keeps_time: bool
) -> None:
    shard = write_shard(tmp_path / "val.tar", 30)
    val = open_val([shard], 5)
    if keeps_time:
        other = Path(shutil.copy2(shard, tmp_path / "other.tar"))  # of the same size and time
        other.replace(shard)
    else:
        os.utime(shard, ns=(1, 1))
    student = Student(SETTINGS, num_classes=5, steps_per_epoch=1)
    settings = dataclasses.replace(SETTINGS, workers=workers)
    with pytest.raises(ChangedShardError, match=r"val.tar: changed since this process began"):
        next(predict(student.model, val, settings))


@pytest.mark.parametrize("launch", ["none", "5f2c"])
def test_a_run_that_torchrun_restarts_is_resumed(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: str
) -> None:
    launched(monkeypatch, launch, 0)
    first = run(data, tmp_path / "run", epochs=1)
    launched(monkeypatch, launch, 1)
    assert run(data, tmp_path / "run", epochs=1) == first


@pytest.mark.parametrize("before", ["", "77aa"])
def test_a_restart_does_not_resume_the_folder_of_another_run(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    launched(monkeypatch, before, 0)
    run(data, tmp_path / "run", epochs=1)
    for restarts in range(2):
        launched(monkeypatch, "5f2c", restarts)
        with pytest.raises(RunFolderError, match="not empty"):
            run(data, tmp_path / "run", epochs=1)


def test_statistics_that_are_not_finite_end_a_run(data: Dataset, tmp_path: Path) -> None:
    """In training mode the loss does not show them."""
    update = Student.update

    def spoiling(self: Student, batch: Any, done: int) -> torch.Tensor:
        loss = update(self, batch, done)
        next(buffer for name, buffer in self.model.named_buffers() if "running_var" in name).fill_(torch.nan)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Student, "update", spoiling)
        patch.setattr(Student, "_rehearse", lambda _: None)
        with pytest.raises(TrainingError, match="the weights are not finite"):
            run(data, tmp_path / "run", epochs=1, reporter=Recorder())


def test_logits_that_are_not_finite_are_refused(data: Dataset) -> None:
    student = Student(SETTINGS, num_classes=5, steps_per_epoch=1)
    next(student.model.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="the student's logits are not finite"):
        next(predict(student.model, open_val(data.val, 5), SETTINGS))
