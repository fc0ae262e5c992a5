"""How long annotating takes, and an epoch with each kind of target: in rounds, so that drift hits all alike."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from pipelines.demo import annotate_digits
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.material import Material
from pipelines.reproduce.runs import one_thread, own_targets
from store.errors import RunFolderError
from trainer.files import read_whole, write_atomically
from trainer.loop import train
from trainer.report import EpochReport, StepReport

ROUNDS = 5
REPORTED_STEPS = 25  # the first so many are not counted: workers start then
ANNOTATION = "annotation"
Times = Mapping[str, Sequence[float]]
"""Seconds, a value for each round: of an epoch, by the arm's name, and of annotating all scenes."""


@dataclass(slots=True)
class _Steps:
    """A reporter that keeps how long steps took."""

    seconds: list[float] = field(default_factory=list)  # per image
    batches: int = 0

    def step(self, report: StepReport) -> None:
        """Keep it."""
        self.batches = report.steps
        self.seconds.append(1 / report.images_per_second)

    def epoch(self, report: EpochReport) -> None:
        """Nothing to keep."""


def time_epochs(arms: Sequence[Arm], material: Material, file: Path) -> Times:
    """Time annotating and every arm in every round, or read what was timed before.

    Raises:
        RelabelError: of `trainer.loop.train`, or a damaged file.
    """
    if not file.exists():
        times: dict[str, list[float]] = {name: [] for name in (ANNOTATION, *(arm.name for arm in arms))}
        for i in range(ROUNDS):
            click.echo(f"\ntiming, round {i + 1} of {ROUNDS}", err=True)
            times[ANNOTATION].append(_annotation(material))
            for arm in arms:
                times[arm.name].append(_epoch(arm, material))
        write_atomically(file, lambda handle: handle.write(json.dumps(times).encode()))
    return _read(file, arms)


def _annotation(material: Material) -> float:
    """Seconds that annotating takes, the teacher's self-test and the start of workers included."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        annotate_digits(material.training, Path(folder) / "labels.zarr")
    return time.monotonic() - start


def _epoch(arm: Arm, material: Material) -> float:
    """Seconds that an epoch takes once it is under way."""
    settings, steps = replace(arm.settings(0), epochs=1, warmup_epochs=0, log_interval=REPORTED_STEPS), _Steps()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        result = train(
            settings,
            shards=material.training,
            labels=material.labels,
            val_shards=(),
            out=Path(folder) / "run",
            resume=False,
            reporter=steps,
            own_targets=own_targets(arm),
        )
    if not result.finished:  # by Ctrl-C
        raise KeyboardInterrupt
    counted = steps.seconds[1:]
    return sum(counted) / len(counted) * steps.batches * settings.batch_size


def _read(file: Path, arms: Sequence[Arm]) -> Times:
    try:
        found = json.loads(read_whole(file))
        return {name: [float(value) for value in found[name]] for name in (ANNOTATION, *(arm.name for arm in arms))}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and it is made again") from error
