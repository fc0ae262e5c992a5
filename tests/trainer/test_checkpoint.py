import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from store.errors import RunFolderError
from tests.trainer.builders import small_settings
from trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from trainer.files import write_atomically
from trainer.metrics import append_metrics, trim_metrics
from trainer.overrides import settings_to_json


def make_checkpoint(**changes: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "model": {"weight": torch.arange(1000.0)}, "optimiser": {"state": {}}, "scheduler": {"t": [1.0, None]},
        "epoch": 3, "samples_seen": 96, "top1": 0.5, "best_top1": 0.625, "num_classes": 5,
        "settings": settings_to_json(small_settings()),
    }  # fmt: skip
    return Checkpoint(**(values | changes))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", make_checkpoint())
    found = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(found.model["weight"], torch.arange(1000.0))
    assert (found.epoch, found.samples_seen, found.top1, found.best_top1) == (3, 96, 0.5, 0.625)
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
    seen: list[int] = []

    def write(handle: Any) -> None:
        handle.write(b"half")
        handle.flush()
        seen.append(load_checkpoint(file).epoch)

    write_atomically(file, write)
    assert (seen, file.read_bytes()) == ([1], b"half")


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
    else:
        file.write_bytes({"empty": b"", "text": b"not a checkpoint"}[damage])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "one bit", "evil", "evil pickle"])
def test_a_damaged_checkpoint_is_told_and_nothing_of_it_runs(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_damaged(tmp_path / "last.pt", damage)
    with pytest.raises(RunFolderError, match=r"last.pt: damaged, or not a checkpoint .*; restore it, or delete it"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not a checkpoint of this release"),
        ({"model": {}}, "wrong or missing: best_top1, epoch, num_classes"),
        ({"epoch": "3"}, "wrong or missing: .*epoch"),
    ],
)
def test_other_files_of_torch_are_refused(tmp_path: Path, values: object, message: str) -> None:
    torch.save(values, tmp_path / "last.pt")
    with pytest.raises(RunFolderError, match=message):
        load_checkpoint(tmp_path / "last.pt")


def test_an_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"best.pt: there is no checkpoint"):
        load_checkpoint(tmp_path / "best.pt")


def test_metrics_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    for epoch in (1, 1, 2, 2, 3):
        append_metrics(tmp_path, {"epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "lo')  # cut off by a kill
    trim_metrics(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 1}\n{"epoch": 2}\n{"epoch": 2}\n'
    trim_metrics(tmp_path / "absent", 0)


def test_metrics_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: cannot be written: No such file"):
        append_metrics(tmp_path / "gone", {"epoch": 1})


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"epoch": null}'])
def test_a_damaged_line_of_metrics_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n')
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: line 2 is damaged"):
        trim_metrics(tmp_path, 1)
