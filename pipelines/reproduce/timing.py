"""Times annotation and an epoch of each arm, in rounds, so that a change of the machine's speed affects all alike."""

import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click

from pipelines.demo.stages import annotate_digits
from pipelines.digits.student import one_thread, train_to_end
from pipelines.machine import describe_machine
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.data import Data
from store.errors import RunFolderError
from store.files import read_whole, write_atomically
from trainer.run.records import EpochReport, StepReport
from trainer.settings import TrainSettings, settings_to_json

ROUNDS = 3
REPORTED_STEPS = 25  # the first so many steps are not counted, since workers start during them
ANNOTATION = "annotation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of each arm's epoch and of annotation, with the machine and the settings that they were taken with."""

    machine: str
    settings: dict[str, object]  # by the arm's name, as JSON
    seconds: dict[str, list[float]]  # one for each round, by the arm's name or `ANNOTATION`


@dataclass(slots=True)
class _Clock:
    """A reporter that records the time of each reported step."""

    reports: list[tuple[int, float]] = field(default_factory=list)  # step, seconds

    def step(self, report: StepReport) -> None:
        """Record the time."""
        self.reports.append((report.step, time.monotonic()))

    def epoch(self, report: EpochReport) -> None:
        """Record nothing."""

    def note(self, text: str) -> None:
        """Record nothing."""

    def seconds(self) -> float:
        """Seconds of an epoch, extrapolated from those between the first report and the last."""
        (first, start), (last, end) = self.reports[0], self.reports[-1]
        return (end - start) / (last - first) * last


def time_epochs(arms: Sequence[Arm], data: Data, file: Path) -> Times:
    """Time annotation and every arm in every round; rounds that the file has already are kept.

    Raises:
        RunFolderError: the file is damaged, or was written on another machine or with other settings.
        RelabelError: as `train_to_end`.
    """
    settings: dict[str, object] = {arm.name: settings_to_json(_settings(arm)) for arm in arms}
    new = Times(machine=describe_machine(), settings=settings, seconds={name: [] for name in (ANNOTATION, *settings)})
    times = _read(file, new) if os.path.lexists(file) else new
    for i in range(len(times.seconds[ANNOTATION]), ROUNDS):
        click.echo(f"\ntiming, round {i + 1} of {ROUNDS}", err=True)
        found = {ANNOTATION: _annotation(data)} | {arm.name: _epoch(arm, data) for arm in arms}
        for name, seconds in times.seconds.items():
            seconds.append(found[name])
        with write_atomically(file) as handle:
            handle.write(json.dumps(asdict(times)).encode())
    return times


def _annotation(data: Data) -> float:
    """Seconds of annotating the training scenes, including the teacher's self-test and the start of workers."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        annotate_digits(data.training, Path(folder) / "labels.zarr")
    return time.monotonic() - start


def _settings(arm: Arm) -> TrainSettings:
    """The arm's settings for one epoch."""
    return replace(arm.settings(0), epochs=1, warmup_epochs=0, log_interval=REPORTED_STEPS)


def _epoch(arm: Arm, data: Data) -> float:
    """Seconds of an epoch, without the start of workers."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        train_to_end(
            _settings(arm),
            shards=data.training,
            labels=data.labels,
            val_shards=(),
            out=Path(folder) / "run",
            reporter=clock,
            custom_targets=arm.custom_targets(),
        )
    return clock.seconds()


def _read(file: Path, new: Times) -> Times:
    """The rounds in the file; raises RunFolderError unless machine, arms and settings are the same as now."""
    try:
        found = json.loads(read_whole(file))
        seconds = {name: [float(value) for value in found["seconds"][name]] for name in new.seconds}
        times = Times(machine=found["machine"], settings=dict(found["settings"]), seconds=seconds)
        if not all(0 < value < math.inf for values in seconds.values() for value in values):
            raise ValueError("invalid time")
        if len({len(values) for values in seconds.values()}) > 1:
            raise ValueError("some arms have fewer rounds")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and the times are taken again") from error
    if (times.machine, times.settings) != (new.machine, new.settings):
        raise RunFolderError(f"{file}: of another machine or other settings; delete it, and the times are taken again")
    return times
