"""How long annotating takes, and an epoch with each kind of target: in rounds, so that drift hits all alike."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click

from pipelines.demo import annotate_digits
from pipelines.machine import describe_machine
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.material import Material
from pipelines.reproduce.runs import one_thread, own_targets
from store.errors import RunFolderError
from trainer.files import read_whole, write_atomically
from trainer.loop import train
from trainer.overrides import settings_to_json
from trainer.report import EpochReport, StepReport
from trainer.settings import TrainSettings

ROUNDS = 5
REPORTED_STEPS = 25  # the first so many are not counted: workers start then
ANNOTATION = "annotation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """What was timed, where, and of which settings."""

    machine: str
    settings: Mapping[str, object]  # as JSON, by the arm's name
    seconds: Mapping[str, Sequence[float]]  # a value a round: of an epoch, by the arm's name, and of annotating all


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
        RelabelError: of `trainer.loop.train`, or a file that is damaged or of other settings.
    """
    settings = {arm.name: settings_to_json(_settings(arm)) for arm in arms}
    if not file.exists():
        times = Times(machine=describe_machine(), settings=settings, seconds=_rounds(arms, material))
        write_atomically(file, lambda handle: handle.write(json.dumps(asdict(times)).encode()))
    times = _read(file, arms)
    if times.settings != settings:
        raise RunFolderError(f"{file}: of other settings; delete it, and the times are taken again")
    return times


def _rounds(arms: Sequence[Arm], material: Material) -> Mapping[str, Sequence[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in (ANNOTATION, *(arm.name for arm in arms))}
    for i in range(ROUNDS):
        click.echo(f"\ntiming, round {i + 1} of {ROUNDS}", err=True)
        seconds[ANNOTATION].append(_annotation(material))
        for arm in arms:
            seconds[arm.name].append(_epoch(arm, material))
    return seconds


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
    with tempfile.TemporaryDirectory() as folder, one_thread():
        result = train(
            _settings(arm),
            shards=material.training,
            labels=material.labels,
            val_shards=(),
            out=Path(folder) / "run",
            resume=False,
            reporter=clock,
            own_targets=own_targets(arm),
        )
    if not result.finished:  # by Ctrl-C
        raise KeyboardInterrupt
    return clock.seconds()


def _read(file: Path, arms: Sequence[Arm]) -> Times:
    try:
        found = json.loads(read_whole(file))
        names = (ANNOTATION, *(arm.name for arm in arms))
        seconds = {name: [float(value) for value in found["seconds"][name]] for name in names}
        return Times(machine=str(found["machine"]), settings=dict(found["settings"]), seconds=seconds)
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and it is made again") from error
