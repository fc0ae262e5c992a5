"""What rank 0 leaves in the run folder while it trains: checkpoints, `metrics.jsonl`, TensorBoard's files."""

from dataclasses import asdict
from pathlib import Path

from trainer.board import Board
from trainer.checkpoint import BEST, Checkpoint, save_checkpoint, save_step, step_checkpoints
from trainer.metrics import append_metrics
from trainer.report import EpochReport, Reporter, StepReport


class Records:
    """Writes on rank 0, and nothing elsewhere; to be used as a context.

    Args:
        folder: of the run.
        reporter: told of progress, once it is written.
        rank: of this process.
        updates_done: before this process took the run up.
        keep: how many checkpoints to keep besides the best.
    """

    def __init__(self, folder: Path, reporter: Reporter, *, rank: int, updates_done: int, keep: int) -> None:
        self._folder, self._reporter, self._keep = folder, reporter, keep
        self._board = Board(folder, updates_done) if rank == 0 else None

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def step(self, report: StepReport, updates: int) -> None:
        """Some steps are done."""
        if self._board is not None:
            append_metrics(self._folder, {"kind": "step", **asdict(report)})
            self._board.add("train", asdict(report), updates)
            self._reporter.step(report)

    def epoch(self, report: EpochReport, checkpoint: Checkpoint, updates: int) -> None:
        """An epoch is done."""
        if self._board is not None:
            append_metrics(self._folder, {"kind": "epoch", **_epoch_record(report)})
            self._board.add("epoch", _epoch_record(report), updates)
            if report.is_best:
                save_checkpoint(self._folder / BEST, checkpoint)
            # It comes last: whatever was written for an epoch that it does not count is written again.
            self.save(checkpoint, updates)
            self._reporter.epoch(report)

    def save(self, checkpoint: Checkpoint, updates: int) -> None:
        """Keep a checkpoint to go on from."""
        if self._board is not None:
            save_step(self._folder, checkpoint, updates=updates, keep=self._keep)

    def kept(self) -> str:
        """What a run that cannot go on leaves behind."""
        found = step_checkpoints(self._folder)
        return f"{found[-1]} is the last checkpoint" if found else "nothing was saved yet"


def _epoch_record(report: EpochReport) -> dict[str, object]:
    accuracy = report.accuracy
    counts = {} if accuracy is None else {**asdict(accuracy), "top1": accuracy.top1, "top5": accuracy.top5}
    record = {"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds}
    return {**record, **counts, "is_best": report.is_best}
