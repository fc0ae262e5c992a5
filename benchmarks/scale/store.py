"""What `benchmarks.scale` does with a store before anyone trains on it: write, verify, look up, describe.

Nothing here imports torch, as `relabel-store` does not. The commands run in this process, as their users start them.
"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import numpy as np

from benchmarks.scale.data import Plan, Wanted, Written, on_disk, write_store
from benchmarks.stages import Figures, Stage, WrongResultError, in_process
from store.cli.main import main as relabel_store
from store.errors import LabelNotFoundError
from store.reader import LabelStore

SHOWN = 5  # whole processes of `relabel-store show`


def expect(what: str, found: object, expected: object) -> None:
    """Raise WrongResultError unless two things are equal."""
    if found != expected:
        raise WrongResultError(f"{what}: {found}, expected {expected}")


def ask(*arguments: str) -> Any:  # noqa: ANN401  (any JSON)
    """What a command of `relabel-store` answers in JSON."""
    with redirect_stdout(io.StringIO()) as answer:
        relabel_store([*arguments, "--json"], standalone_mode=False)
    return json.loads(answer.getvalue())


def verify(path: Path, plan: Plan, *, deep: bool) -> None:
    """`relabel-store verify`."""
    found = ask("verify", str(path), *(["--deep"] if deep else []))
    expect("verified groups and faults", (found["groups"], found["faults"]), (plan.groups, []))


def show_store(path: Path, plan: Plan) -> None:
    """`relabel-store show`."""
    found = ask("show", str(path))
    expect("rows and groups of show", (found["rows"], len(found["groups"])), (plan.rows, plan.groups))


def audit(path: Path, plan: Plan) -> None:
    """`relabel-store audit`, which reads every map."""
    expect("images of audit", ask("audit", str(path))["images"], plan.rows)


def open_all(path: Path, plan: Plan) -> Figures:
    """Milliseconds to open a store, to list its groups, and to open all of them."""
    start = time.perf_counter()
    store = LabelStore.open(path)
    opened = time.perf_counter()
    names = store.names()
    listed = time.perf_counter()
    groups = list(store)
    ended = time.perf_counter()
    expect("names and rows", (len(names), sum(map(len, groups))), (plan.groups, plan.rows))
    return {
        "open the store: ms": 1e3 * (opened - start),
        "list its groups: ms": 1e3 * (listed - opened),
        "open all groups, sizes checked: ms": 1e3 * (ended - listed),
    }


def look_up(path: Path, wanted: Sequence[Wanted]) -> Figures:
    """Milliseconds to find keys by `LabelStore.find`, in an order that has nothing to do with where they lie."""
    store = LabelStore.open(path)
    times = []
    for i in np.random.default_rng(3).permutation(len(wanted)):
        start = time.perf_counter()
        group, row = store.find(wanted[i].key)
        times.append(1e3 * (time.perf_counter() - start))
        expect(wanted[i].key, (group.name, row), (wanted[i].group, wanted[i].row))
    low, middle, high = quantiles(times[1:], n=4, method="inclusive")
    start = time.perf_counter()
    _expect_missing(store)
    nowhere = 1e3 * (time.perf_counter() - start)
    return {
        "find a key, the first in a process: ms": times[0],
        f"find a key, median of the {len(times) - 1} others: ms": middle,
        "find a key, lower quartile: ms": low,
        "find a key, upper quartile: ms": high,
        "look for a key that is nowhere: ms": nowhere,
    }


def _expect_missing(store: LabelStore) -> None:
    try:
        store.find("n00000000_none")
    except LabelNotFoundError:
        return
    raise WrongResultError("a key that was never written was found")


def show(path: Path, key: str) -> float:
    """Milliseconds of `relabel-store show LABELS KEY`, the whole process; the median of some."""
    times = []
    for _ in range(SHOWN):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "store.cli.main", "show", str(path), key], check=True, capture_output=True
        )
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def bench_store(given: str, path: Path, plan: Plan) -> Figures:
    """All of it, each in a process of its own; leaves the store where it is."""
    progress(plan, "write")
    wrote = in_process(partial(write_store, given, path, plan))
    figures = _written(wrote, path, plan)
    for name, deep in (("verify", False), ("verify --deep", True)):
        progress(plan, name)
        figures |= _timed(name, in_process(partial(verify, path, plan, deep=deep)), plan)
    progress(plan, "open, look up")
    opened = in_process(partial(open_all, path, plan))
    figures |= opened.value | {"open all groups: peak MiB": opened.peak_mib}
    found = in_process(partial(look_up, path, wrote.value.wanted))
    figures |= found.value | {"find a key: peak MiB": found.peak_mib}
    figures["show KEY, whole process: ms"] = show(path, wrote.value.wanted[-1].key)
    progress(plan, "show, audit")
    figures |= _timed("show", in_process(partial(show_store, path, plan)), plan)
    figures |= _timed("audit", in_process(partial(audit, path, plan)), plan)
    return figures | {"a process that has imported the store: MiB": opened.floor_mib}


def progress(plan: Plan, what: str) -> None:
    """Say on standard error what is being done."""
    click.echo(f"{plan.rows:,} rows: {what}", err=True)


def _written(wrote: Stage[Written], path: Path, plan: Plan) -> Figures:
    there = on_disk(path)
    return {
        "write: s": wrote.value.seconds,
        "write: rows/s": plan.rows / wrote.value.seconds,
        "write: peak MiB": wrote.peak_mib,
        "files": there["files"],
        "folders": there["folders"],
        "bytes in files": there["bytes"],
        "bytes in files, a row": there["bytes"] / plan.rows,
        "bytes that the disk gives them, a row": there["allocated"] / plan.rows,
    }


def _timed(name: str, stage: Stage[None], plan: Plan) -> Figures:
    return {
        f"{name}: s": stage.seconds,
        f"{name}: rows/s": plan.rows / stage.seconds,
        f"{name}: peak MiB": stage.peak_mib,
    }
