import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.demo import stages
from pipelines.demo.__main__ import main
from pipelines.demo.result import command
from trainer.run.records import append_metrics


@pytest.mark.parametrize(
    ("cwd", "expected"), [("", ".venv/bin/relabel-store"), ("elsewhere", "{}/.venv/bin/relabel-store")]
)
def test_commands_are_shown_as_they_can_be_typed(
    tmp_path: Path, cwd: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / cwd).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / cwd)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert command("relabel-store") == expected.format(tmp_path)


@pytest.mark.parametrize("stage", ["shards", "annotate", "train", "run"])
@pytest.mark.parametrize("below", ["", "demo"])
def test_an_out_that_is_a_file_is_one_line(tmp_path: Path, stage: str, below: str) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, [stage, "--out", str(tmp_path / "file" / below)])
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {tmp_path / 'file'} is a file, not a folder; choose another")
    assert result.output.count("\n") == 1


def test_student_that_was_trained_before_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "make_shards", lambda _: ([], []))
    monkeypatch.setattr("pipelines.digits.student.train_to_end", lambda *_, **__: None)
    (tmp_path / "relabel").mkdir()
    for epoch, expected in ((7, ""), (8, f"trained before, 8 epochs: {tmp_path / 'relabel'}\n")):
        append_metrics(tmp_path / "relabel", {"kind": "epoch", "epoch": epoch})
        stages.train_student(tmp_path, "relabel")
        assert capsys.readouterr().err == expected
