import sys

import pytest

from pipelines.train.progress import TrainProgress
from trainer.evaluation.evaluate import Accuracy
from trainer.run.records import EpochReport, StepReport

STEP = StepReport(epoch=2, epochs=8, step=10, steps=62, loss=1.5, lr=0.05, images_per_second=1234.5, waiting=0.031)
EPOCH = EpochReport(
    epoch=2, epochs=8, loss=1.25, seconds=61.0,
    accuracy=Accuracy(samples=200, top1_hits=101, top5_hits=190), is_best=True,
)  # fmt: skip


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress() as progress:
        progress.step(STEP)
        progress.epoch(EPOCH)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "epoch 2/8 step 10/62: loss 1.5000, lr 0.05, 1,234 images/s, 3% waiting for data",
        "epoch 2/8: loss 1.2500, 61.0 s, top-1 50.50%, top-5 95.00% (best so far)",
    ]


def test_a_terminal_gets_a_bar_and_the_epochs_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with TrainProgress() as progress:
        progress.step(STEP)
        progress.epoch(EPOCH)
    shown = capsys.readouterr().err
    assert "epoch 2/8" in shown
    assert "10/62" in shown
    assert "top-1 50.50%" in shown
    assert "step 10/62: loss" not in shown
