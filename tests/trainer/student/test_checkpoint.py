import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import RunFolderError
from store.files import write_atomically
from tests.builders.training import small_settings
from trainer.run.records import append_metrics, finished_epochs, trim_metrics
from trainer.settings import settings_to_json
from trainer.student.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_step, step_checkpoints


def make_checkpoint(**changes: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "model": {"weight": torch.arange(1000.0)}, "optimiser": {"state": {}}, "scheduler": {"t": [1.0, None]},
        "ema": None, "epoch": 3, "samples_seen": 96, "loss_sum": 7.5, "top1": 0.5, "best_top1": 0.625, "num_classes": 5,
        "settings": settings_to_json(small_settings()),
    }  # fmt: skip
    return Checkpoint(**(values | changes))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", make_checkpoint())
    found = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(found.model["weight"], torch.arange(1000.0))
    assert (found.epoch, found.top1, found.best_top1, found.num_classes) == (3, 0.5, 0.625, 5)
    assert (found.settings, found.scheduler) == (settings_to_json(small_settings()), {"t": [1.0, None]})
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, make_checkpoint(epoch=1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = {"write": "torch.save", "fsync": "os.fsync", "replace": "pathlib.Path.replace"}[at]
    monkeypatch.setattr(target, fail)
    with pytest.raises(RunFolderError, match=r"last.pt: cannot be written: No space left on device"):
        save_checkpoint(file, make_checkpoint(epoch=2))
    monkeypatch.undo()
    assert load_checkpoint(file).epoch == 1
    save_checkpoint(file, make_checkpoint(epoch=3))  # what the failed write left is no obstacle
    assert (load_checkpoint(file).epoch, os.listdir(tmp_path)) == (3, ["last.pt"])


def test_a_checkpoint_is_never_seen_half_written(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, make_checkpoint(epoch=1))
    with write_atomically(file) as handle:
        handle.write(b"half")
        handle.flush()
        assert load_checkpoint(file).epoch == 1
    assert file.read_bytes() == b"half"


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("pwned",)


def write_damaged(file: Path, damage: str) -> None:
    save_checkpoint(file, make_checkpoint())
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "one bit":
        content[content.index(torch.arange(1000.0).numpy().tobytes()[400:440])] ^= 1
        file.write_bytes(content)
    elif damage == "evil":
        torch.save({"model": Evil()}, file)
    elif damage == "evil pickle":
        file.write_bytes(pickle.dumps(Evil()))
    elif damage == "odd pickle":  # pops from an empty stack
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02s.")
            archive.writestr("archive/version", b"3")
    else:
        file.write_bytes({"empty": b"", "text": b"not a checkpoint"}[damage])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "one bit", "evil", "evil pickle", "odd pickle"])
def test_a_damaged_checkpoint_is_refused_and_none_of_its_code_runs(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_damaged(tmp_path / "last.pt", damage)
    with pytest.raises(RunFolderError, match=r"last.pt: damaged, or not a checkpoint .*; restore it or take another"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not a checkpoint of this release"),
        ({"model": {}}, "wrong, missing or unknown: best_top1, ema, epoch, loss_sum, num_classes"),
        ({1: 2}, "wrong, missing or unknown: 1, best_top1"),
    ],
)
def test_other_files_of_torch_are_refused(tmp_path: Path, values: object, message: str) -> None:
    torch.save(values, tmp_path / "last.pt")
    with pytest.raises(RunFolderError, match=message):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", "3"), ("epoch", True), ("epoch", -1), ("epoch", 1.0),
        ("top1", math.nan), ("top1", 1.5), ("best_top1", -0.1), ("best_top1", "0.5"), ("best_top1", True),
        ("num_classes", True), ("num_classes", 0), ("num_classes", 2**40),
        ("model", []), ("optimiser", None), ("scheduler", 1), ("settings", "{}"), ("samples_seen", -1),
        ("samples_seen", 96.0), ("loss_sum", 1), ("loss_sum", math.nan), ("loss_sum", math.inf), ("ema", []),
        ("generator", 1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    good = {field.name: getattr(make_checkpoint(), field.name) for field in fields(Checkpoint)}
    torch.save(good | {name: value}, tmp_path / "last.pt")
    with pytest.raises(RunFolderError, match=f"last.pt: not a checkpoint of this release; .*unknown: {name}$"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("is_there", [True, False])
def test_an_absent_checkpoint_is_named(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "best.pt").mkdir()
    with pytest.raises(RunFolderError, match=r"best.pt: there is no checkpoint"):
        load_checkpoint(tmp_path / "best.pt")


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    for epoch, step in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1)):
        append_metrics(tmp_path, {"epoch": epoch, "step": step})
    append_metrics(tmp_path, {"epoch": 2, "kind": "epoch"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "lo')  # cut off by a kill
    trim_metrics(tmp_path, 1, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    trim_metrics(tmp_path / "absent", 0, 0)


def test_metrics_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: cannot be written: No such file"):
        append_metrics(tmp_path / "gone", {"epoch": 1})


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense", b"[]", b"{}", b'{"epoch": null}', b'{"epoch": 1e400}', b'{"epoch": true}', b'{"epoch": "1"}',
        b'{"epoch": 1, "\xff": 2}', b'{"epoch": 1}', b'{"epoch": 1, "step": "2"}',
        b"[" * 100_000, b'{"epoch": 1}\r{"epoch": 2}', b"",
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [lambda folder: trim_metrics(folder, 1, 0), finished_epochs])
def test_a_damaged_line_of_metrics_is_named(tmp_path: Path, line: bytes, read: Callable[[Path], object]) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"epoch": 1, "step": 1}\n' + line + b"\n")
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: line 2 is damaged"):
        read(tmp_path)


def test_metrics_that_are_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")  # reading it would wait for ever
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: not a regular file"):
        trim_metrics(tmp_path, 1, 0)


def test_finished_epochs_are_counted_by_their_ends_and_by_what_follows_them(tmp_path: Path) -> None:
    counts = [finished_epochs(tmp_path)]
    for epoch, kind in ((1, "step"), (1, "epoch"), (2, "step"), (3, "step")):
        append_metrics(tmp_path, {"kind": kind, "epoch": epoch, "step": 1})
        counts.append(finished_epochs(tmp_path))
    assert counts == [0, 0, 1, 1, 2]


def test_a_line_that_was_cut_off_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "lo')
    trim_metrics(tmp_path, 1, 0)
    append_metrics(tmp_path, {"epoch": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_checkpoints_are_kept_in_the_order_of_their_updates(tmp_path: Path, keep: int) -> None:
    (tmp_path / "step-1.pt").touch()  # not one of ours
    for updates in (1, 9, 10, 100, 123_456_789):
        assert save_step(tmp_path, make_checkpoint(), updates=updates, keep=keep).is_file()
    kept = [int(file.stem.removeprefix("step-")) for file in step_checkpoints(tmp_path)]
    assert kept == [10, 100, 123_456_789][-keep:]
    assert (tmp_path / "step-1.pt").exists()
