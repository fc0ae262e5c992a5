import sys

import pytest

from pipelines.train.progress import EvaluateProgress


def test_without_a_terminal_every_tenth_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with EvaluateProgress() as progress:
        for done in range(100, 2001, 100):
            progress(done, 2000)
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = [line.partition(",  ")[0].rpartition(", ")[0] for line in captured.err.splitlines()]
    assert shown == [f"{done:,} of 2,000 images" for done in range(200, 2001, 200)]


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with EvaluateProgress() as progress:
        progress(64, 2000)
    shown = capsys.readouterr().err
    assert "64/2,000" in shown
    assert "images/s" not in shown


def test_ranks_beside_the_first_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with EvaluateProgress(silent=True) as progress:
        progress(2000, 2000)
    assert capsys.readouterr().err == ""
