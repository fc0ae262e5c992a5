"""Measures seconds and memory in rounds, and prints the results as Markdown tables.

Alternatives take turns in each round, so that a change of the machine's speed affects all of them alike, and a ratio is
one of two values of the same round.
"""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

HEADER = "median | quartiles | runs |\n|---|---|---|---|"
median = statistics.median


def take_turns(ways: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """The value that each way returns in each round; a first round warms up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(runs + 1):
        for name, way in ways.items():
            value = way()
            if i:
                found[name].append(value)
    return found


def time_turns(ways: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round, after one that is not counted."""
    return take_turns({name: partial(milliseconds, way) for name, way in ways.items()}, runs)


def milliseconds(run: Callable[[], object]) -> float:
    """Duration of one call."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def peak_mib(process: int | str = "self") -> float:
    """Largest resident set of a process since its program began, in MiB, mapped libraries and shared pages included.

    `ru_maxrss` would include the memory of the process that started it.
    """
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """One ratio for each round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def table(title: str, rows: Mapping[str, Sequence[float]]) -> None:
    """Print a row of median, quartiles and number of runs for each name.

    A ratio is named `ours / theirs`, with its unit, if any, after a colon: the report finds it by the slash.
    """
    print(f"| {title} | {HEADER}")
    for name, values in rows.items():
        low, high = values[0], values[0]
        if len(values) > 1:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        print(f"| {name} | {number(median(values))} | {number(low)} to {number(high)} | {len(values)} |", flush=True)


def number(value: float) -> str:
    """Three significant digits, with thousands separators.

    >>> number(0.01234), number(12.345), number(36_512.0)
    ('0.0123', '12.3', '36,500')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
