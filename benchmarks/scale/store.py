"""Measures writing, verifying, opening, searching, showing and auditing a store of a whole dataset's size.

Nothing here imports torch, as `relabel-store` does not.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import msgspec
import numpy as np

from benchmarks.resample import PROVENANCE, Plan, draw_groups, read_maps
from benchmarks.stages import Figures, Stage, WrongResultError, in_process
from store.cli.main import main as relabel_store
from store.cli.progress import track
from store.errors import LabelNotFoundError
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.writer import StoreWriter

LOOKUPS = 1000
SHOWN = 5  # processes of `relabel-store show`


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenKey:
    """A key that is looked up later, and where it was written."""

    key: str
    group: str
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The time that writing a store took, and the keys to look up."""

    seconds: float  # in `GroupLabels` and `StoreWriter.write`, without drawing the rows
    keys: list[WrittenKey]


def expect(what: str, found: object, expected: object) -> None:
    """Raise WrongResultError unless two things are equal."""
    if found != expected:
        raise WrongResultError(f"{what}: {found}, expected {expected}")


def relabel_store_json(*arguments: str) -> Any:  # noqa: ANN401  (any JSON)
    """Run a command of `relabel-store` in this process and parse the JSON that it prints."""
    with redirect_stdout(io.StringIO()) as printed:
        relabel_store([*arguments, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


def max_bytes(schema: StoreSchema, rows: int) -> int:
    """Largest size of a store of so many rows: that of incompressible maps."""
    cells = schema.map_size[0] * schema.map_size[1]
    return rows * (4 * schema.top_k * cells + 2 * cells + 100)


def write_store(given: str, path: Path, plan: Plan) -> Written:
    """Write all groups one after the other, with the checks, encoding and syncing that an annotator does."""
    maps, schema = read_maps(given), LabelStore.open(given).schema
    teacher = msgspec.structs.replace(schema.teacher, architecture="resampled")
    writer = StoreWriter.open(path, msgspec.structs.replace(schema, teacher=teacher))
    seconds, first = 0.0, 0
    keys: list[WrittenKey] = []
    looked_up = np.random.default_rng(2).integers(0, plan.rows, LOOKUPS)
    groups = draw_groups(maps, schema, plan)
    for _ in track(range(plan.groups), "write"):
        name, labels, tar = next(groups)
        start = time.perf_counter()
        labels = replace(labels)  # runs the checks again, as in the annotator
        writer.write(name, labels, tar=tar, provenance=PROVENANCE)
        seconds += time.perf_counter() - start
        here = looked_up[(looked_up >= first) & (looked_up < first + len(labels.keys))] - first
        keys += [WrittenKey(key=labels.keys[row], group=name, row=int(row)) for row in here]
        first += len(labels.keys)
    return Written(seconds=seconds, keys=keys)


def on_disk(path: Path) -> dict[str, int]:
    """Number of files and folders, bytes in the files, and bytes allocated for them."""
    found = {"files": 0, "folders": 0, "bytes": 0, "allocated": 0}
    for folder, _, files in os.walk(path):
        found["folders"] += 1
        for file in files:
            info = os.lstat(os.path.join(folder, file))
            found["files"] += 1
            found["bytes"] += info.st_size
            found["allocated"] += 512 * info.st_blocks
    return found


def verify(path: Path, plan: Plan, *, deep: bool) -> None:
    """`relabel-store verify`."""
    found = relabel_store_json("verify", str(path), *(["--deep"] if deep else []))
    expect("verified groups and faults", (found["groups"], found["faults"]), (plan.groups, []))


def show(path: Path, plan: Plan) -> None:
    """`relabel-store show LABELS`."""
    found = relabel_store_json("show", str(path))
    expect("rows and groups of show", (found["rows"], len(found["groups"])), (plan.rows, plan.groups))


def audit(path: Path, plan: Plan) -> None:
    """`relabel-store audit`, which reads every map."""
    expect("images of audit", relabel_store_json("audit", str(path))["images"], plan.rows)


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


def look_up(path: Path, keys: Sequence[WrittenKey]) -> Figures:
    """Milliseconds to find keys by `LabelStore.find`, in random order."""
    store = LabelStore.open(path)
    times = []
    for i in np.random.default_rng(3).permutation(len(keys)):
        start = time.perf_counter()
        group, row = store.find(keys[i].key)
        times.append(1e3 * (time.perf_counter() - start))
        expect(keys[i].key, (group.name, row), (keys[i].group, keys[i].row))
    low, middle, high = quantiles(times[1:], n=4, method="inclusive")
    start = time.perf_counter()
    _expect_missing(store)
    missing = 1e3 * (time.perf_counter() - start)
    return {
        "find a key, the first in a process: ms": times[0],
        f"find a key, median of the {len(times) - 1} others: ms": middle,
        "find a key, lower quartile: ms": low,
        "find a key, upper quartile: ms": high,
        "look for a key that is missing: ms": missing,
    }


def _expect_missing(store: LabelStore) -> None:
    try:
        store.find("n00000000_none")
    except LabelNotFoundError:
        return
    raise WrongResultError("a key that was never written was found")


def show_key(path: Path, key: str) -> float:
    """Milliseconds of a process that runs `relabel-store show LABELS KEY`, the median of some."""
    times = []
    for _ in range(SHOWN):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "store.cli.main", "show", str(path), key], check=True, capture_output=True
        )
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def bench_store(given: str, path: Path, plan: Plan) -> Figures:
    """Measure all of it, each stage in a process of its own; the store is kept."""
    progress(plan, "write")
    wrote = in_process(partial(write_store, given, path, plan))
    figures = _written(wrote, path, plan)
    for name, deep in (("verify", False), ("verify --deep", True)):
        progress(plan, name)
        figures |= _timed(name, in_process(partial(verify, path, plan, deep=deep)), plan)
    progress(plan, "open, look up")
    opened = in_process(partial(open_all, path, plan))
    figures |= opened.value | {"open all groups: peak MiB": opened.peak_mib}
    found = in_process(partial(look_up, path, wrote.value.keys))
    figures |= found.value | {"find a key: peak MiB": found.peak_mib}
    figures["show KEY, whole process: ms"] = show_key(path, wrote.value.keys[-1].key)
    progress(plan, "show, audit")
    figures |= _timed("show", in_process(partial(show, path, plan)), plan)
    figures |= _timed("audit", in_process(partial(audit, path, plan)), plan)
    return figures | {"a process that has imported the store: MiB": opened.floor_mib}


def progress(plan: Plan, what: str) -> None:
    """Print on standard error which stage begins."""
    click.echo(f"{plan.rows:,} rows: {what}", err=True)


def _written(wrote: Stage[Written], path: Path, plan: Plan) -> Figures:
    disk = on_disk(path)
    return {
        "write: s": wrote.value.seconds,
        "write: rows/s": plan.rows / wrote.value.seconds,
        "write: peak MiB": wrote.peak_mib,
        "files": disk["files"],
        "folders": disk["folders"],
        "bytes in files": disk["bytes"],
        "bytes in files, a row": disk["bytes"] / plan.rows,
        "bytes allocated, a row": disk["allocated"] / plan.rows,
    }


def _timed(name: str, stage: Stage[None], plan: Plan) -> Figures:
    return {
        f"{name}: s": stage.seconds,
        f"{name}: rows/s": plan.rows / stage.seconds,
        f"{name}: peak MiB": stage.peak_mib,
    }
