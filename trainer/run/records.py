"""Writes a run's records on rank 0: `metrics.jsonl`, TensorBoard's files and checkpoints; reports progress.

`metrics.jsonl` has one JSON object for each report and each epoch, without duplicates after resuming.
"""

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

METRICS = "metrics.jsonl"


class _Line(NamedTuple):
    text: bytes
    epoch: int
    step: float  # infinite for the line of a finished epoch


def append_metrics(folder: Path, record: dict[str, Any]) -> None:
    """Append a line to metrics.jsonl; `record` has an `epoch`, counted from 1.

    Raises:
        RunFolderError: writing failed.
    """
    try:
        with (folder / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise RunFolderError(f"{folder / METRICS}: cannot be written: {error.strerror or error}") from error


def finished_epochs(folder: Path) -> int:
    """The number of finished epochs by the lines of metrics.jsonl; 0 without lines.

    Raises:
        RunFolderError: a damaged line.
    """
    lines = _read_lines(folder / METRICS)
    return max((line.epoch if line.step == math.inf else line.epoch - 1 for line in lines), default=0)


def trim_metrics(folder: Path, epochs_done: int, steps_done: int) -> None:
    """Drop the lines of steps that a resumed run will repeat.

    Args:
        folder: of the run.
        epochs_done: finished epochs.
        steps_done: finished steps of the unfinished epoch.

    Raises:
        RunFolderError: a damaged line.
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
    # Text after the last newline is a line that was cut off when the run was killed.
    complete = content.split(b"\n")[:-1]
    return [_parse(file, number, text + b"\n") for number, text in enumerate(complete, 1)]


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


class TensorBoard:
    """TensorBoard's event files in the run folder.

    Args:
        folder: of the run.
        updates_done: numbers that an earlier process wrote after these updates are hidden, since they are repeated.
    """

    def __init__(self, folder: Path, updates_done: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=updates_done + 1)

    def add(self, group: str, record: Mapping[str, object], updates: int) -> None:
        """Add the numbers of a record as `group/name`, after so many updates."""
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{group}/{name}", value, updates)

    def close(self) -> None:
        """Write and close the event files."""
        self._writer.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """A report on the steps since the last one."""

    epoch: int  # from 1
    epochs: int
    step: int  # finished steps of this epoch
    steps: int  # in an epoch
    loss: float  # mean, over all ranks
    lr: float  # of the last step
    images_per_second: float  # of all ranks together
    waiting: float  # fraction of the time that rank 0 waited for data, 0 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """A report on a finished epoch."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean
    seconds: float  # of training and validation in this process
    accuracy: Accuracy | None  # None without validation shards
    is_best: bool  # the best top-1 so far
    left_out: tuple[str, ...] = ()  # errors of images that could not be decoded, in whose places others stood


class Reporter(Protocol):
    """Shows progress."""

    def step(self, report: StepReport) -> None:
        """Show a report on some steps."""

    def epoch(self, report: EpochReport) -> None:
        """Show a finished epoch, which is evaluated and saved."""

    def note(self, text: str) -> None:
        """Show a line about the data."""


class Records:
    """The records of a run, a context; does nothing on ranks other than 0.

    Args:
        folder: of the run.
        reporter: shows each report after it is written.
        rank: of this process.
        updates_done: before this process started or resumed the run.
        keep: number of checkpoints to keep besides the best.
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
        """Record and report some steps."""
        if self._tensorboard is not None:
            append_metrics(self._folder, {"kind": "step", **asdict(report)})
            self._tensorboard.add("train", asdict(report), updates)
            self._reporter.step(report)

    def epoch(self, report: EpochReport, checkpoint: Checkpoint, updates: int) -> None:
        """Record, save and report a finished epoch."""
        if self._tensorboard is not None:
            append_metrics(self._folder, {"kind": "epoch", **_epoch_record(report)})
            self._tensorboard.add("epoch", _epoch_record(report), updates)
            if report.is_best:
                save_checkpoint(self._folder / BEST, checkpoint)
            # Saved last: after a kill before this, the run repeats the epoch and its records.
            self.save(checkpoint, updates)
            self._reporter.epoch(report)

    def save(self, checkpoint: Checkpoint, updates: int) -> None:
        """Save a checkpoint to resume from."""
        if self._tensorboard is not None:
            save_step(self._folder, checkpoint, updates=updates, keep=self._keep)

    def kept(self) -> str:
        """A text that names the last checkpoint of a run that cannot continue."""
        found = step_checkpoints(self._folder)
        return f"{found[-1]} is the last checkpoint" if found else "nothing was saved yet"


def _epoch_record(report: EpochReport) -> dict[str, object]:
    accuracy = report.accuracy
    counts = {} if accuracy is None else {**asdict(accuracy), "top1": accuracy.top1, "top5": accuracy.top5}
    record = {"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds}
    left_out = {"left_out": list(report.left_out)} if report.left_out else {}
    return {**record, **counts, "is_best": report.is_best, **left_out}
