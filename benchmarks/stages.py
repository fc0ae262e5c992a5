"""Runs parts of a benchmark in processes of their own, to measure the seconds and the memory of each."""

import multiprocessing
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Generic, TypeVar

from benchmarks.measure import peak_mib
from store.errors import RelabelError

Figures = dict[str, float]  # by name and unit
T = TypeVar("T")


class WrongResultError(RelabelError, RuntimeError):
    """A count, lookup or read gave another result than was written."""


class KilledError(RelabelError, RuntimeError):
    """A stage's process was killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Generic[T]):
    """The result of a part, with its seconds and memory."""

    value: T
    seconds: float
    floor_mib: float  # peak of the process before the part began
    peak_mib: float  # peak of the process after it


def private_mib() -> float:
    """MiB of this process's private pages."""
    pages = Path("/proc/self/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"Private_(?:Clean|Dirty):\s+(\d+) kB", pages))) / 1024


def measured(work: Callable[[], T]) -> Stage[T]:
    """Run a part in this process."""
    floor, start = peak_mib(), time.perf_counter()
    value = work()
    return Stage(value=value, seconds=time.perf_counter() - start, floor_mib=floor, peak_mib=peak_mib())


def in_process(work: Callable[[], T]) -> Stage[T]:
    """Run a part in a new process, which imports only the part's modules; `work` is a `partial` of a function."""
    with processes(1, "spawn") as pool:
        return pool.submit(measured, work).result()


@contextmanager
def processes(count: int, method: str) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, a new one for each call."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_ignore_ctrl_c, max_tasks_per_child=1) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            end_processes()
            raise KilledError("a process was killed, most often for lack of memory") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes()
            raise


def end_processes() -> None:
    """Kill the processes that this one has started."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGTERM and Ctrl-C within the block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that its outputs are removed."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _ignore_ctrl_c() -> None:
    # A terminal sends Ctrl-C to all processes; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
