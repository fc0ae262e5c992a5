"""Whole runs in one process: files, resuming, and errors before and during training."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import RelabelError, RunFolderError, SettingsError, ShardError, StoreNotFoundError, TrainingError
from tests.builders.training import (
    Dataset,
    Recorder,
    assert_same_state,
    interrupted_run,
    label_shard,
    last,
    make_dataset,
    metrics,
    run,
    write_shard,
)
from trainer.run.records import EpochReport
from trainer.student.checkpoint import load_checkpoint, step_checkpoints
from trainer.student.student import Student

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


LONG_RUN: dict[str, Any] = {
    "epochs": 3, "model_args": {"drop_rate": 0.2}, "ema_decay": 0.9, "checkpoint_interval": 2
}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run(dataset, out, **LONG_RUN)
    return out


def test_a_run_leaves_its_files_and_reports(dataset: Dataset, tmp_path: Path) -> None:
    reporter = Recorder()
    result = run(dataset, tmp_path / "run", reporter=reporter)
    names = (file.name.split(".out.tfevents")[0] for file in (tmp_path / "run").iterdir())
    assert sorted(names) == [
        ".lock", "best.pt", "events", "metrics.jsonl", "settings.json", "step-00000004.pt", "step-00000008.pt",
    ]  # fmt: skip
    assert [(report.epoch, report.step, report.steps) for report in reporter.steps] == [
        (1, 2, 4), (1, 4, 4), (2, 2, 4), (2, 4, 4),
    ]  # fmt: skip
    assert [report.epoch for report in reporter.epochs] == [1, 2]
    assert result.epochs == 2
    assert result.best_top1 == max(report.accuracy.top1 for report in reporter.epochs if report.accuracy)
    identity = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert identity["settings"]["device"] == "cpu"
    assert identity["labels"]["shards"] == {"train-0": 70, "train-1": 10, "train-2": 48}
    assert identity["labels"]["schema"]["teacher"]["digest"] == "0" * 64
    assert identity["labels"]["schema"]["view"]["mode"] == "squash"
    assert load_checkpoint(last(tmp_path / "run")).epoch == 2


@pytest.mark.parametrize(("at_step", "workers", "saved"), [(1, 0, []), (3, 0, [2]), (6, 2, [4, 6]), (8, 0, [6, 8])])
def test_resuming_equals_never_stopping_bit_for_bit(
    dataset: Dataset, uninterrupted: Path, tmp_path: Path, at_step: int, workers: int, saved: list[int]
) -> None:
    out = tmp_path / "run"
    interrupted_run(dataset, out, at_step=at_step, **LONG_RUN)
    assert [file.name for file in step_checkpoints(out)] == [f"step-{updates:08}.pt" for updates in saved]
    torch.manual_seed(1234)
    run(dataset, out, resume=True, workers=workers, **LONG_RUN)
    assert_same_state(out, uninterrupted)
    assert metrics(out) == metrics(uninterrupted)


def test_resuming_with_several_crops_of_each_image_equals_never_stopping(dataset: Dataset, tmp_path: Path) -> None:
    """An epoch has as many steps as with one crop; the images of an epoch follow from its number."""
    several: dict[str, Any] = {
        "crops_per_image": 4,
        "cutmix_prob": 0.5,
        "mixup_prob": 0.5,
        "checkpoint_interval": 1,
        "val": False,
    }
    run(dataset, tmp_path / "whole", **several)
    interrupted_run(dataset, tmp_path / "run", at_step=6, **several)
    run(dataset, tmp_path / "run", resume=True, **several)
    assert_same_state(tmp_path / "run", tmp_path / "whole")
    assert load_checkpoint(last(tmp_path / "run")).epoch == 2


def test_resuming_after_a_kill_between_metrics_and_checkpoint_repeats_nothing(
    dataset: Dataset, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    interrupted_run(dataset, out, at_step=4, **LONG_RUN)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "epoch": 2, "loss": 0}\n{"kind": "st')
    run(dataset, out, resume=True, **LONG_RUN)
    assert metrics(out) == metrics(uninterrupted)


def test_resuming_a_finished_run_does_nothing(dataset: Dataset, tmp_path: Path) -> None:
    first = run(dataset, tmp_path / "run")
    before = last(tmp_path / "run").read_bytes()
    assert run(dataset, tmp_path / "run", resume=True) == first
    assert last(tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("exists", [True, False])
def test_resuming_an_empty_or_absent_folder_starts(dataset: Dataset, tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "run").mkdir()
    assert run(dataset, tmp_path / "run", resume=True, epochs=1).epochs == 1


def test_without_validation_there_is_no_best(dataset: Dataset, tmp_path: Path) -> None:
    result = run(dataset, tmp_path / "run", val=False, epochs=1)
    assert (result.top1, result.best_top1) == (None, None)
    assert not (tmp_path / "run" / "best.pt").exists()


@pytest.fixture(scope="module")
def plain_run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain"
    run(dataset, out, epochs=1, val=False)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "global"}, {"target": "local-single"}, {"target": "global-single"}, {"target": "original"},
        {"target": "original", "label_smoothing": 0.1}, {"original_weight": 0.5, "label_smoothing": 0.1},
        {"temperature": 0.5},
        {"opt": "adamw", "lr": 1e-3}, {"batch_size": 25}, {"interpolation": "bicubic"}, {"accumulate": 4},
        {"colour_jitter": 0.4, "lighting": 0.1}, {"cutmix_prob": 0.5, "mixup_prob": 0.5}, {"ema_decay": 0.9},
        {"clip_grad": 1.0}, {"sched": "step", "sched_args": {"decay_epochs": 0.5}},
    ],
)  # fmt: skip
def test_every_kind_of_run_trains(dataset: Dataset, plain_run: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run(dataset, tmp_path / "run", epochs=1, val=False, **changes)
    ours, plain = (load_checkpoint(last(out)) for out in (tmp_path / "run", plain_run))
    assert ours.epoch == 1
    trained, without = (state.ema or state.model for state in (ours, plain))
    assert not all(torch.equal(trained[name], without[name]) for name in without), "the setting changes nothing"


def test_a_folder_that_is_not_empty_needs_resume(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    with pytest.raises(RunFolderError, match=r"run: not empty; choose another folder, or .* --resume"):
        run(dataset, tmp_path / "run", epochs=1)


def test_resuming_a_folder_that_is_no_run_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match=r"not a run folder \(it holds no settings.json\)"):
        run(dataset, tmp_path, resume=True)


@pytest.mark.parametrize("below", ["", "runs/first"])
def test_an_out_that_is_a_file_is_refused(dataset: Dataset, tmp_path: Path, below: str) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match=r"/run is a file, not a folder; choose another"):
        run(dataset, tmp_path / "run" / below)


def test_an_out_that_cannot_be_made_is_refused(dataset: Dataset) -> None:
    with pytest.raises(RunFolderError, match=r"/proc/run: cannot be made: No such file or directory"):
        run(dataset, Path("/proc/run"))


def test_resuming_with_other_settings_lists_them(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    with pytest.raises(RunFolderError, match=r"\(epochs: 1 then, 2 now; lr: 0.05 then, 0.1 now\)"):
        run(dataset, tmp_path / "run", resume=True, epochs=2, lr=0.1)
    run(dataset, tmp_path / "run", resume=True, epochs=1, workers=2, log_interval=1)


def test_resuming_with_other_data_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    swapped = Dataset(shards=dataset.shards[::-1], labels=dataset.labels, val=dataset.val)
    with pytest.raises(RunFolderError, match="shards: 3 shards then, 3 now, of other names, sizes or order"):
        run(swapped, tmp_path / "run", resume=True, epochs=1)
    with pytest.raises(RunFolderError, match="val: 1 shards then, 0 now"):
        run(dataset, tmp_path / "run", resume=True, epochs=1, val=False)
    for shard in dataset.shards:
        label_shard(tmp_path / "labels", shard, digest="1" * 64)
    relabelled = Dataset(shards=dataset.shards, labels=tmp_path / "labels", val=dataset.val)
    with pytest.raises(RunFolderError, match="labels: another teacher's"):
        run(relabelled, tmp_path / "run", resume=True, epochs=1)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b"\xff", b"[" * 100_000,
        b'{"settings": 1, "labels": {"shards": {}}, "val_shards": {}}',
        b'{"settings": {}, "labels": {}, "val_shards": {}}',
        b'{"settings": {}, "labels": {"shards": []}, "val_shards": {}}',
        b'{"settings": {}, "labels": {"shards": {}}, "val_shards": null}',
    ],
)  # fmt: skip
def test_damaged_settings_of_a_run_are_refused(dataset: Dataset, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"settings.json: damaged; restore it, or train again in another folder"):
        run(dataset, tmp_path, resume=True)


def test_hostile_settings_of_a_run_are_quoted_in_short(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    file = tmp_path / "run" / "settings.json"
    identity = json.loads(file.read_text())
    identity["settings"] |= {"lr": ["x" * 10_000], "model": "y" * 10_000}
    nested = json.dumps(identity["settings"]).replace("[", "[" * 500).replace("]", "]" * 500)
    file.write_text(json.dumps(identity | {"settings": None}).replace("null", nested, 1))
    with pytest.raises(RunFolderError, match=r"lr: \[.*then, 0.05 now; mean") as caught:
        run(dataset, tmp_path / "run", resume=True, epochs=1)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("left", [["metrics.jsonl"], ["best.pt"], ["metrics.jsonl", "best.pt"]])
def test_a_run_with_lost_checkpoints_does_not_start_again(dataset: Dataset, tmp_path: Path, left: list[str]) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    for file in (tmp_path / "run").iterdir():
        if file.name not in (".lock", "settings.json", *left):
            file.unlink()
    message = r"run: its step-\*.pt are missing, though epoch 1 was finished; put one back to continue, or train again"
    with pytest.raises(RunFolderError, match=message):
        run(dataset, tmp_path / "run", resume=True, epochs=1)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == sorted([".lock", "settings.json", *left])


@pytest.mark.parametrize("saving", ["best.pt", "step-00000004.pt"])
def test_a_run_that_was_killed_while_it_saved_its_first_epoch_starts_again(
    dataset: Dataset, uninterrupted: Path, tmp_path: Path, saving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == saving:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            run(dataset, tmp_path / "run", **LONG_RUN)
    run(dataset, tmp_path / "run", resume=True, **LONG_RUN)
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def test_a_lost_checkpoint_is_an_error_even_after_an_interrupted_later_save(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run")
    (first, second) = step_checkpoints(tmp_path / "run")
    first.unlink()
    second.rename(tmp_path / "run" / f".{second.name}.partial")
    with pytest.raises(RunFolderError, match=r"its step-\*.pt are missing, though epoch 2 was finished"):
        run(dataset, tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_stops_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "run", epochs=1)
    last(tmp_path / "run").write_bytes(b"gone")
    with pytest.raises(
        RunFolderError, match=r"step-00000004.pt: damaged.* resumes from an older one once this one is moved away"
    ):
        run(dataset, tmp_path / "run", resume=True, epochs=1)


def test_a_checkpoint_of_another_run_stops_a_resume_and_leaves_the_metrics(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "other", epochs=1, lr=0.04)
    interrupted_run(dataset, tmp_path / "run", at_step=6)
    last(tmp_path / "other").replace(last(tmp_path / "run"))
    before = metrics(tmp_path / "run")
    with pytest.raises(
        RunFolderError, match=r"step-00000004.pt: not a checkpoint of this run \(epochs: 1 then, 2 now; lr: 0.04"
    ):
        run(dataset, tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run") == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Student.update

    def diverging(self: Student, batch: Any, done: int) -> Any:
        return update(self, batch, done) * (float("nan") if done == 5 else 1)

    monkeypatch.setattr(Student, "update", diverging)
    message = r"epoch 2, step 2: the loss is nan; .*step-00000004.pt is the last checkpoint. Try a lower lr"
    with pytest.raises(TrainingError, match=message):
        run(dataset, tmp_path / "run")
    assert load_checkpoint(last(tmp_path / "run")).epoch == 1


def test_a_loss_that_is_not_finite_in_the_first_epoch_saves_nothing(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan; nothing was saved yet"):
        run(dataset, tmp_path / "run", lr=1e6, weight_decay=1e6, log_interval=1000)
    assert step_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_that_only_the_last_update_of_an_epoch_spoils_are_not_saved(
    dataset: Dataset, tmp_path: Path, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss is finite: each comes before its update."""
    update = Student.update

    def spoiling(self: Student, batch: Any, done: int) -> Any:
        loss = update(self, batch, done)
        if done == 4 * epoch - 1:
            next(iter(self.model.parameters())).data[0] = math.inf
        return loss

    monkeypatch.setattr(Student, "update", spoiling)
    kept = "nothing was saved yet" if epoch == 1 else "step-00000004.pt is the last checkpoint"
    with pytest.raises(
        TrainingError, match=f"epoch {epoch}, step 4: the weights are not finite; .*{kept}. Try a lower lr"
    ):
        run(dataset, tmp_path / "run")
    assert len(step_checkpoints(tmp_path / "run")) == epoch - 1
    assert [line["epoch"] for line in metrics(tmp_path / "run") if line["kind"] == "epoch"] == [1][: epoch - 1]


def test_unusable_data_and_settings_are_found_before_the_run_folder_is_made(dataset: Dataset, tmp_path: Path) -> None:
    def attempt(data: Dataset, error: type[RelabelError], message: str, **changes: Any) -> None:
        with pytest.raises(error, match=message):
            run(data, tmp_path / "run", **changes)
        assert not (tmp_path / "run").exists()

    bare = write_shard(tmp_path / "bare.tar", 3, labelled=False)
    attempt(Dataset(shards=dataset.shards, labels=tmp_path, val=[]), StoreNotFoundError, "no label store here")
    attempt(Dataset(shards=dataset.shards, labels=dataset.labels, val=[bare]), ShardError, r"has no .cls label")
    attempt(dataset, SettingsError, "timm has no such model", model="none")
    attempt(dataset, SettingsError, "fewer than one batch", batch_size=512)


def test_errors_of_workers_end_the_run_with_their_own_message(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, (40,))
    content = bytearray(data.shards[0].read_bytes())
    at = content.index(b"s00020.png")
    content[at : at + 6] = b"s0002X"
    header = content[at : at + 512]
    header[148:156] = b" " * 8
    content[at + 148 : at + 156] = f"{sum(header):06o}\0 ".encode()
    info = data.shards[0].stat()
    data.shards[0].write_bytes(content)
    os.utime(data.shards[0], ns=(info.st_atime_ns, info.st_mtime_ns))  # else the shard is refused before
    with pytest.raises(RelabelError, match=r"annotated as 's00020' \(row 20\), but 's0002X\.png'"):
        run(data, tmp_path / "run", workers=2, batch_size=40)


class StopsAtTheEnd(Recorder):
    """Sends SIGTERM after the last epoch."""

    def epoch(self, report: EpochReport) -> None:
        super().epoch(report)
        if report.epoch == report.epochs:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_after_the_last_step_is_reported(dataset: Dataset, tmp_path: Path) -> None:
    quiet, asked = (
        run(dataset, tmp_path / name, val=False, reporter=reporter)
        for name, reporter in (("quiet", Recorder()), ("asked", StopsAtTheEnd()))
    )
    assert (quiet.finished, quiet.stopped) == (True, False)
    assert (asked.finished, asked.stopped) == (True, True)


def test_labels_whose_scores_are_not_centred_are_warned_of(tmp_path: Path) -> None:
    """Log-probabilities, as a release before centred scores would have stored them."""
    data = make_dataset(tmp_path, (40,), score_kind="logit", shift=-30.0)
    for target, expected in (("relabel", 1), ("original", 0)):
        reporter = Recorder()
        run(data, tmp_path / target, reporter=reporter, target=target, epochs=1)
        assert len(reporter.notes) == expected
        assert all("in 100% of the cells no score is above 0" in notice for notice in reporter.notes)
