"""All students, a few at a time; what is finished is not done again."""

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

from pipelines.demo.stages import annotate_digits, make_shards
from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import SceneTruth, read_truth, write_shards
from pipelines.digits.student import one_thread, train_to_end
from pipelines.machine import cores
from pipelines.reproduce.arms import Arm, distilled_targets
from store.errors import RunFolderError, TrainingError
from store.files import read_whole, write_atomically
from store.processes import ending_workers, start_server, worker_deaths
from trainer.evaluation.evaluate import load_student, open_val, predict
from trainer.run.records import EpochReport, StepReport
from trainer.settings import settings_differences, settings_to_json
from trainer.student.checkpoint import step_checkpoints
from trainer.targets.custom import CustomTargets

# What all arms share: scenes to train on, their label maps, and scenes to test on.


TEST_SCENES, TEST_SEED = 2000, 1  # drawn of the digits kept for validation, which neither teacher nor student saw


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Where everything lies."""

    training: list[Path]
    labels: Path
    test: list[Path]
    truths: list[SceneTruth]  # of the test scenes


def make_material(out: Path) -> Material:
    """Draw and annotate what is missing below `out`.

    Raises:
        RunFolderError: `out` has other test scenes.
        RelabelError: of `annotate_digits`.
    """
    training, _ = make_shards(out)
    labels = out / "labels.zarr"
    annotate_digits(training, labels)
    test = write_shards(out / "test", "val", TEST_SCENES, 1, TEST_SEED)
    truths = [truth for shard in test for truth in read_truth(shard)]
    if len(truths) != TEST_SCENES:
        raise RunFolderError(f"{out}: has {len(truths):,} test scenes, not {TEST_SCENES:,}; choose another folder")
    return Material(training=training, labels=labels, test=test, truths=truths)


# What a student's logits are worth, against the one label and against all digits of a scene.
#
# Shapes: N scenes, C classes.


BINS = 15  # of the calibration error


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Each 0 to 1."""

    present: float  # share of scenes whose top-1 is among the classes present, as in ReaL
    label: float  # share of scenes whose top-1 is the single label, which was drawn at random
    precision: float  # average precision by presence, mean over the classes
    calibration: float  # expected calibration error against the single label


def measure(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64], present_NC: NDArray[np.bool_]) -> Scores:
    """Score one student.

    Args:
        logits_NC: its output.
        labels_N: the single labels.
        present_NC: which classes are in which scene; each in at least one.
    """
    from scipy.special import softmax
    from sklearn.metrics import average_precision_score

    probabilities_NC, best_N = softmax(logits_NC, axis=1), logits_NC.argmax(1)
    return Scores(
        present=float(np.mean(present_NC[np.arange(len(best_N)), best_N])),
        label=float(np.mean(best_N == labels_N)),
        precision=float(average_precision_score(present_NC, probabilities_NC, average="macro")),
        calibration=calibration_error(probabilities_NC.max(1), best_N == labels_N),
    )


def calibration_error(confidences_N: NDArray[np.float32], hits_N: NDArray[np.bool_]) -> float:
    """Mean over the scenes of the gap between confidence and accuracy in a scene's bin (Guo et al., ICML 2017).

    >>> round(calibration_error(np.array([0.9, 0.9], np.float32), np.array([True, False])), 6)
    0.4
    """
    bins_N = np.minimum((confidences_N * BINS).astype(int), BINS - 1)
    gaps_N = confidences_N.astype(np.float64) - hits_N
    sums = np.bincount(bins_N, weights=gaps_N, minlength=BINS)
    return float(np.abs(sums).sum() / len(hits_N))


# Training and scoring one student.


RESULT = "result.json"


class Silent:
    """A reporter for one of several students at a time, whose steps would be told in a jumble."""

    def step(self, report: StepReport) -> None:
        """Say nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One student."""

    arm: str
    seed: int
    scores: Scores


def run_one(arm: Arm, seed: int, material: Material, folder: Path) -> Scores:
    """Train a student, or go on with it, score it, and leave the scores in its folder.

    Raises:
        RelabelError: of `train_to_end`.
    """
    _train_one(arm, seed, material, folder)
    with one_thread():
        scores = _score(folder, material)
    record = {"settings": settings_to_json(arm.settings(seed)), "scores": asdict(scores)}
    with write_atomically(folder / RESULT) as file:
        file.write(json.dumps(record, indent=1).encode())
    return scores


def _train_one(arm: Arm, seed: int, material: Material, folder: Path) -> None:
    train_to_end(
        arm.settings(seed),
        shards=material.training,
        labels=material.labels,
        val_shards=(),  # no epoch is chosen by its accuracy
        out=folder,
        reporter=Silent(),
        custom_targets=custom_targets(arm),
    )


def custom_targets(arm: Arm) -> CustomTargets | None:
    """What an arm is trained on if the trainer does not know it."""
    return distilled_targets() if arm.distils else None


@worker_deaths(TrainingError, "use fewer workers")
def _score(folder: Path, material: Material) -> Scores:
    """Of the last epoch's student on the test scenes."""
    model, settings = load_student(step_checkpoints(folder)[-1])
    predictions = list(predict(model, open_val(material.test, len(CLASS_NAMES)), settings))
    keys = [key for prediction in predictions for key in prediction.keys]
    return measure(
        torch.cat([prediction.logits for prediction in predictions]).numpy(),
        torch.cat([prediction.labels for prediction in predictions]).numpy(),
        present(material.truths, keys),
    )


def present(truths: Iterable[SceneTruth], keys: list[str]) -> NDArray[np.bool_]:
    """(N, C) which digits are in which of the scenes."""
    by_key = {truth.key: truth for truth in truths}
    present_NC = np.zeros((len(keys), len(CLASS_NAMES)), np.bool_)
    for n, key in enumerate(keys):
        present_NC[n, list(by_key[key].labels)] = True
    return present_NC


def read_result(folder: Path, arm: Arm, seed: int) -> Result | None:
    """What `run_one` left; None if it has not been there.

    Raises:
        RunFolderError: a damaged result, or one of other settings.
    """
    file = folder / RESULT
    if not os.path.lexists(file):
        return None
    try:
        record = json.loads(read_whole(file))
        settings, scores = dict(record["settings"]), Scores(**record["scores"])
        if not all(0 <= value <= 1 for value in asdict(scores).values()):
            raise ValueError("a score that is none")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{file}: damaged; delete it, and it is made again") from error
    if differences := list(settings_differences(settings, settings_to_json(arm.settings(seed)))):
        raise RunFolderError(f"{file}: of other settings ({'; '.join(differences)}); choose another folder")
    return Result(arm=arm.name, seed=seed, scores=scores)


AT_MOST = 8  # at a time: a student and the processes that read for it take some two gigabytes


@dataclass(frozen=True, slots=True)
class Student:
    """What is trained where."""

    arm: Arm
    seed: int
    folder: Path

    def result(self) -> Result | None:
        """If it is finished; raises as `read_result` does."""
        return read_result(self.folder, self.arm, self.seed)


def prepare() -> None:
    """Start the process that students come from, which takes seconds; beside other work if called early."""
    start_server([run_one.__module__])


def run_all(arms: Sequence[Arm], seeds: int, material: Material, out: Path) -> list[Result]:
    """A student of every arm and seed, below `out`; all arms of a seed first, so that a stop leaves no arm behind.

    Raises:
        RelabelError: of `run_one` and `read_result`; a result that cannot be used is found before any training.
        TrainingError: a process was killed.
    """
    students = [Student(arm, seed, out / f"{arm.name}-{seed}") for seed in range(seeds) for arm in arms]
    if left := [student for student in students if student.result() is None]:
        _train(left, len(students), material)
    return [result for student in students if (result := student.result())]


def _train(students: Sequence[Student], of: int, material: Material) -> None:
    """Train those that are left of so many, and tell of each."""
    at_a_time = min(cores(), AT_MOST, len(students))
    click.echo(f"\ntraining {len(students)} of {of} students, {at_a_time} at a time", err=True)
    with _processes(at_a_time) as pool:
        started = time.monotonic()
        futures = {pool.submit(run_one, s.arm, s.seed, material, s.folder): s for s in students}
        for done, future in enumerate(as_completed(futures), 1):
            student, scores = futures[future], future.result()
            minutes = (time.monotonic() - started) / done * (len(students) - done) / 60
            left = f"; about {minutes:.0f} minutes left" if done >= at_a_time else ""  # others are half done before
            click.echo(
                f"{of - len(students) + done} of {of}: {student.arm.title}, seed {student.seed}: top-1 is present in "
                f"{scores.present:.1%} of the test scenes{left}",
                err=True,
            )


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that ignore signals and end with this context; an interrupted student goes on from its epoch."""
    prepare()
    with worker_deaths(TrainingError, "run it again to go on"), ExitStack() as stack:
        begin = stack.enter_context(ending_workers())
        pool = ProcessPoolExecutor(count, get_context("forkserver"), initializer=begin, initargs=(0,))
        try:
            yield pool
        finally:
            stack.close()  # asks the workers to end, whatever they are doing
            pool.shutdown(cancel_futures=True)  # waits until they have
