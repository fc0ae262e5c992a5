"""Parts of a benchmark, each in a process of its own: its seconds and its memory are nobody else's."""

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

from benchmarks.memory import peak_mib
from store.errors import RelabelError

Figures = dict[str, float]  # by name and unit
T = TypeVar("T")


class WrongResultError(RelabelError, RuntimeError):
    """Something was not counted, found or read as it was written."""


class KilledError(RelabelError, RuntimeError):
    """A process of a stage is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Generic[T]):
    """What a part gave and took."""

    value: T
    seconds: float
    floor_mib: float  # of the process before it began
    peak_mib: float


def private_mib() -> float:
    """MiB of the pages that this process has now and shares with no other."""
    pages = Path("/proc/self/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"Private_(?:Clean|Dirty):\s+(\d+) kB", pages))) / 1024


def measured(work: Callable[[], T]) -> Stage[T]:
    """Do a part in this process."""
    floor, start = peak_mib(), time.perf_counter()
    value = work()
    return Stage(value=value, seconds=time.perf_counter() - start, floor_mib=floor, peak_mib=peak_mib())


def in_process(work: Callable[[], T]) -> Stage[T]:
    """Do a part in a new process, which has imported nothing but what it needs; `work` is a `partial` of a function."""
    with processes(1, "spawn") as pool:
        return pool.submit(measured, work).result()


@contextmanager
def processes(count: int, method: str) -> Iterator[ProcessPoolExecutor]:
    """So many processes at a time, a new one for each call."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_hear_nothing, max_tasks_per_child=1) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            end_processes()
            raise KilledError("a process was killed, most often for want of memory") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes()
            raise


def end_processes() -> None:
    """End what this process has started and is still at work."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


@contextmanager
def signals_ignored() -> Iterator[None]:
    """SIGTERM and Ctrl-C do nothing meanwhile."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, what it has made removed."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _hear_nothing() -> None:
    # Ctrl-C goes to all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
