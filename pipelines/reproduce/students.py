"""Trains and scores a student of every arm and seed, several at a time; finished students are kept.

Shapes: N scenes, C classes.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import SceneTruth
from pipelines.digits.student import one_thread, train_to_end
from pipelines.machine import cores
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.data import Data
from pipelines.reproduce.scores import Scores, measure
from store.errors import RunFolderError, TrainingError
from store.files import read_whole, write_atomically
from store.system.processes import ending_workers, start_server, worker_deaths
from trainer.evaluation.evaluate import open_val, predict
from trainer.run.records import EpochReport, StepReport
from trainer.settings import settings_differences, settings_to_json
from trainer.student.checkpoint import step_checkpoints
from trainer.student.trained import load_trained

RESULT = "result.json"
MAX_PROCESSES = 8  # a student and its loader processes take some two gigabytes of memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The scores of one student."""

    arm: str
    seed: int
    scores: Scores


@dataclass(frozen=True, slots=True)
class Student:
    """One student: its arm, its seed and its run folder."""

    arm: Arm
    seed: int
    folder: Path

    def result(self) -> Result | None:
        """Its scores; None if it is not finished. Raises as `read_result`."""
        return read_result(self.folder, self.arm, self.seed)


def prepare() -> None:
    """Start the server process that students are forked from, which takes seconds; call it early."""
    start_server([run_one.__module__])


def run_all(arms: Sequence[Arm], seeds: int, data: Data, out: Path) -> list[Result]:
    """Train and score a student of every arm and seed in folders below `out`.

    All arms of a seed come before those of the next one, so that an interrupted call has equally many seeds of each.

    Raises:
        RelabelError: as `run_one` and `read_result`; unusable results are found before any training.
        TrainingError: a process was killed.
    """
    students = [Student(arm, seed, out / f"{arm.name}-{seed}") for seed in range(seeds) for arm in arms]
    if left := [student for student in students if student.result() is None]:
        _train_all(left, len(students), data)
    return [result for student in students if (result := student.result())]


def _train_all(students: Sequence[Student], total: int, data: Data) -> None:
    """Train the students that are left of `total`, and print a line for each."""
    at_a_time = min(cores(), MAX_PROCESSES, len(students))
    click.echo(f"\ntraining {len(students)} of {total} students, {at_a_time} at a time", err=True)
    with _processes(at_a_time) as pool:
        started = time.monotonic()
        futures = {pool.submit(run_one, s.arm, s.seed, data, s.folder): s for s in students}
        for done, future in enumerate(as_completed(futures), 1):
            student, scores = futures[future], future.result()
            minutes = (time.monotonic() - started) / done * (len(students) - done) / 60
            # The first few estimates would ignore the students that are half done.
            left = f"; about {minutes:.0f} minutes left" if done >= at_a_time else ""
            click.echo(
                f"{total - len(students) + done} of {total}: {student.arm.title}, seed {student.seed}: top-1 is "
                f"present in {scores.present:.1%} of the test scenes{left}",
                err=True,
            )


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes ignore signals and end with this context, also in the middle of their work.

    An interrupted student continues from its last epoch when the command is run again.
    """
    prepare()
    with worker_deaths(TrainingError, "run it again to go on"), ExitStack() as stack:
        begin = stack.enter_context(ending_workers())
        pool = ProcessPoolExecutor(count, get_context("forkserver"), initializer=begin, initargs=(0,))
        try:
            yield pool
        finally:
            stack.close()  # tells the processes to end
            pool.shutdown(cancel_futures=True)  # waits until they have ended


def run_one(arm: Arm, seed: int, data: Data, folder: Path) -> Scores:
    """Train a student, or resume its training, score it, and write the scores to its folder.

    Raises:
        RelabelError: as `train_to_end`.
    """
    _train(arm, seed, data, folder)
    with one_thread():
        scores = _score(folder, data)
    record = {"settings": settings_to_json(arm.settings(seed)), "scores": asdict(scores)}
    with write_atomically(folder / RESULT) as file:
        file.write(json.dumps(record, indent=1).encode())
    return scores


def _train(arm: Arm, seed: int, data: Data, folder: Path) -> None:
    train_to_end(
        arm.settings(seed),
        shards=data.training,
        labels=data.labels,
        val_shards=(),  # no epoch is chosen by accuracy: the last one is scored
        out=folder,
        reporter=_Silent(),
        custom_targets=arm.custom_targets(),
    )


class _Silent:
    """A reporter that prints nothing; the lines of several students at a time would be interleaved."""

    def step(self, report: StepReport) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@worker_deaths(TrainingError, "use fewer workers")
def _score(folder: Path, data: Data) -> Scores:
    """Score the last epoch's student on the test scenes."""
    student = load_trained(step_checkpoints(folder)[-1])
    predictions = list(predict(student.model, open_val(data.test, len(CLASS_NAMES)), student.settings))
    keys = [key for prediction in predictions for key in prediction.keys]
    return measure(
        torch.cat([prediction.logits for prediction in predictions]).numpy(),
        torch.cat([prediction.labels for prediction in predictions]).numpy(),
        present_classes(data.truths, keys),
    )


def present_classes(truths: Iterable[SceneTruth], keys: list[str]) -> NDArray[np.bool_]:
    """(N, C) which digits each scene shows, in the order of the keys."""
    by_key = {truth.key: truth for truth in truths}
    present_NC = np.zeros((len(keys), len(CLASS_NAMES)), np.bool_)
    for n, key in enumerate(keys):
        present_NC[n, list(by_key[key].labels)] = True
    return present_NC


def read_result(folder: Path, arm: Arm, seed: int) -> Result | None:
    """The scores that `run_one` wrote; None if there are none.

    Raises:
        RunFolderError: the file is damaged, or was written with other settings.
    """
    file = folder / RESULT
    if not os.path.lexists(file):
        return None
    try:
        record = json.loads(read_whole(file))
        settings, scores = dict(record["settings"]), Scores(**record["scores"])
        if not all(0 <= value <= 1 for value in asdict(scores).values()):
            raise ValueError("invalid score")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and the student is scored again") from error
    if differences := list(settings_differences(settings, settings_to_json(arm.settings(seed)))):
        raise RunFolderError(f"{file}: of other settings ({'; '.join(differences)}); choose another folder")
    return Result(arm=arm.name, seed=seed, scores=scores)
