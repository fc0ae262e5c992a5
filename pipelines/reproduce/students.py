"""All students, a few at a time; what is finished is not done again."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click

from pipelines.machine import cores
from pipelines.reproduce.arms import Arm
from pipelines.reproduce.material import Material
from pipelines.reproduce.runs import Result, read_result, run_one
from store.errors import TrainingError
from store.workers import ending_workers, start_server

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
    """They hear no signals, and end with this context: a student goes on from its last epoch, whatever ended it."""
    prepare()
    with ExitStack() as stack:
        begin = stack.enter_context(ending_workers())
        pool = ProcessPoolExecutor(count, get_context("forkserver"), initializer=begin, initargs=(0,))
        try:
            yield pool
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that trained a student was killed, most often for want of memory; run it again to go on"
            ) from error
        finally:
            stack.close()  # tells them to end, whatever they are at
            pool.shutdown(cancel_futures=True)  # waits until they have
