"""How long annotating takes, and an epoch with each kind of target: in rounds, so that drift hits all alike."""

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
from pipelines.reproduce.students import Material, custom_targets
from store.errors import RunFolderError
from store.files import read_whole, write_atomically
from trainer.run.records import EpochReport, StepReport
from trainer.settings import TrainSettings, settings_to_json

ROUNDS = 3
REPORTED_STEPS = 25  # the first so many are not counted: workers start then
ANNOTATION = "annotation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """What was timed, where, and of which settings."""

    machine: str
    settings: dict[str, object]  # as JSON, by the arm's name
    seconds: dict[str, list[float]]  # a value a round: of an epoch, by the arm's name, and of annotating all


@dataclass(slots=True)
class _Clock:
    """A reporter that keeps when it was told of which steps."""

    told: list[tuple[int, float]] = field(default_factory=list)

    def step(self, report: StepReport) -> None:
        """Keep it."""
        self.told.append((report.step, time.monotonic()))

    def epoch(self, report: EpochReport) -> None:
        """Nothing to keep."""

    def seconds(self) -> float:
        """Of an epoch, at the pace between the first report and the last."""
        (first, since), (last, until) = self.told[0], self.told[-1]
        return (until - since) / (last - first) * last


def time_epochs(arms: Sequence[Arm], material: Material, file: Path) -> Times:
    """Time annotating and every arm in every round, or read what was timed before.

    Raises:
        RelabelError: of `train_to_end`, or a file that is damaged or of other settings.
    """
    settings: dict[str, object] = {arm.name: settings_to_json(_settings(arm)) for arm in arms}
    new = Times(machine=describe_machine(), settings=settings, seconds={name: [] for name in (ANNOTATION, *settings)})
    times = _read(file, new) if os.path.lexists(file) else new
    for i in range(len(times.seconds[ANNOTATION]), ROUNDS):
        click.echo(f"\ntiming, round {i + 1} of {ROUNDS}", err=True)
        found = {ANNOTATION: _annotation(material)} | {arm.name: _epoch(arm, material) for arm in arms}
        for name, seconds in times.seconds.items():
            seconds.append(found[name])
        with write_atomically(file) as handle:
            handle.write(json.dumps(asdict(times)).encode())
    return times


def _annotation(material: Material) -> float:
    """Seconds that annotating takes, the teacher's self-test and the start of workers included."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        annotate_digits(material.training, Path(folder) / "labels.zarr")
    return time.monotonic() - start


def _settings(arm: Arm) -> TrainSettings:
    """One epoch with the arm's targets."""
    return replace(arm.settings(0), epochs=1, warmup_epochs=0, log_interval=REPORTED_STEPS)


def _epoch(arm: Arm, material: Material) -> float:
    """Seconds that an epoch takes once it is under way."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        train_to_end(
            _settings(arm),
            shards=material.training,
            labels=material.labels,
            val_shards=(),
            out=Path(folder) / "run",
            reporter=clock,
            custom_targets=custom_targets(arm),
        )
    return clock.seconds()


def _read(file: Path, new: Times) -> Times:
    """What was timed before, of the same arms and settings on the same machine."""
    try:
        found = json.loads(read_whole(file))
        seconds = {name: [float(value) for value in found["seconds"][name]] for name in new.seconds}
        times = Times(machine=found["machine"], settings=dict(found["settings"]), seconds=seconds)
        if not all(0 < value < math.inf for values in seconds.values() for value in values):
            raise ValueError("a time that is none")
        if len({len(values) for values in seconds.values()}) > 1:
            raise ValueError("rounds of some arms only")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and it is made again") from error
    if (times.machine, times.settings) != (new.machine, new.settings):
        raise RunFolderError(f"{file}: of another machine or other settings; delete it, and the times are taken again")
    return times
