"""What rank 0 leaves in the run folder while it trains: checkpoints, `metrics.jsonl`, TensorBoard's files."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch.utils.tensorboard import SummaryWriter

from store.errors import RunFolderError
from store.files import read_whole, write_atomically
from trainer.evaluation.evaluate import Accuracy
from trainer.student.checkpoint import BEST, Checkpoint, save_checkpoint, save_step, step_checkpoints

# `metrics.jsonl`: one JSON object per report and per epoch, each epoch's once however often a run was resumed.


METRICS = "metrics.jsonl"


class _Line(NamedTuple):
    text: bytes
    epoch: int
    step: float  # infinite for an epoch's end


def append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Add a line; `record` names its epoch, counted from 1.

    Raises:
        RunFolderError: the disk refused.
    """
    try:
        with (folder / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise RunFolderError(f"{folder / METRICS}: cannot be written: {error.strerror or error}") from error


def finished_epochs(folder: Path) -> int:
    """How many epochs came to their end, as far as the lines tell; 0 where there are none.

    Raises:
        RunFolderError: a line that is not one of ours.
    """
    lines = _read_lines(folder / METRICS)
    return max((line.epoch if line.step == math.inf else line.epoch - 1 for line in lines), default=0)


def trim_metrics(folder: Path, epochs_done: int, steps_done: int) -> None:
    """Drop the lines of what a resumed run goes through again.

    Args:
        folder: of the run.
        epochs_done: whole epochs that are behind it.
        steps_done: steps of the next one.

    Raises:
        RunFolderError: a line that is not one of ours.
    """
    file = folder / METRICS
    done = epochs_done + 1, steps_done
    kept = [line.text for line in _read_lines(file) if line.epoch <= epochs_done or (line.epoch, line.step) <= done]
    if file.exists():
        with write_atomically(file) as handle:
            handle.writelines(kept)


def _read_lines(file: Path) -> list[_Line]:
    try:
        content = read_whole(file)
    except FileNotFoundError:
        return []
    # What stands after the last line's end was cut off when the run was killed.
    whole = content.split(b"\n")[:-1]
    return [_parse(file, number, text + b"\n") for number, text in enumerate(whole, 1)]


def _parse(file: Path, number: int, text: bytes) -> _Line:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, number) from error
    values = record if isinstance(record, dict) else {}
    epoch, step = values.get("epoch"), math.inf if values.get("kind") == "epoch" else values.get("step")
    if type(epoch) is not int or not isinstance(step, int | float):
        raise _damaged(file, number)
    return _Line(text, epoch, step)


def _damaged(file: Path, number: int) -> RunFolderError:
    return RunFolderError(f"{file}: line {number} is damaged; delete that line and resume again")


# A run's numbers for TensorBoard, beside `metrics.jsonl`.


class TensorBoard:
    """Event files in the run folder.

    Args:
        folder: of the run.
        updates_done: what an earlier process wrote after these is gone through again, and hidden.
    """

    def __init__(self, folder: Path, updates_done: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=updates_done + 1)

    def add(self, group: str, record: Mapping[str, object], updates: int) -> None:
        """Add the numbers of a record under `group/name`, after so many updates."""
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{group}/{name}", value, updates)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


# What a run tells while it goes on, to whoever shows it.


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """The steps since the last report."""

    epoch: int  # from 1
    epochs: int
    step: int  # steps done in this epoch
    steps: int  # in an epoch
    loss: float  # mean, over all ranks
    lr: float  # of the last step
    images_per_second: float  # of all ranks together
    waiting: float  # share of the time in which rank 0 waited for data, 0 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """A finished epoch."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean
    seconds: float  # training and validation, since this process took it up
    accuracy: Accuracy | None  # None without validation shards
    is_best: bool  # the best top-1 so far


class Reporter(Protocol):
    """Shows progress."""

    def step(self, report: StepReport) -> None:
        """Some steps are done."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done, evaluated and saved."""


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
        self._tensorboard = TensorBoard(folder, updates_done) if rank == 0 else None

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def step(self, report: StepReport, updates: int) -> None:
        """Some steps are done."""
        if self._tensorboard is not None:
            append_metrics(self._folder, {"kind": "step", **asdict(report)})
            self._tensorboard.add("train", asdict(report), updates)
            self._reporter.step(report)

    def epoch(self, report: EpochReport, checkpoint: Checkpoint, updates: int) -> None:
        """An epoch is done."""
        if self._tensorboard is not None:
            append_metrics(self._folder, {"kind": "epoch", **_epoch_record(report)})
            self._tensorboard.add("epoch", _epoch_record(report), updates)
            if report.is_best:
                save_checkpoint(self._folder / BEST, checkpoint)
            # It comes last: whatever was written for an epoch that it does not count is written again.
            self.save(checkpoint, updates)
            self._reporter.epoch(report)

    def save(self, checkpoint: Checkpoint, updates: int) -> None:
        """Keep a checkpoint to go on from."""
        if self._tensorboard is not None:
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
