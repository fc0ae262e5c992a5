"""Times writing and reading a group, and opening and searching a store of ImageNet's size, each against a floor.

    python -m benchmarks.speed.store --labels STORE --scratch FOLDER

STORE holds real maps, made as docs/real_photographs.md says; they are drawn at random into groups of 1,251 rows, no map
twice within the rows that are compressed together. FOLDER needs 5 GB for 1,024 such groups.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count, cycle
from pathlib import Path

import click
import numpy as np

from benchmarks.measure import peak_mib, ratios, table, time_turns
from benchmarks.resample import GROUP_ROWS, Plan, draw_groups, read_maps
from benchmarks.stores import TAR, make_big_store
from store.cli.base import Command
from store.cli.options import LocalPath
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter

KEYS_FILE = "keys/c/0"


def against_floor(title: str, ways: Mapping[str, Callable[[], object]], runs: int) -> None:
    """Print the milliseconds of two ways, the second of which is the floor of the first, and their ratio."""
    times = time_turns(ways, runs)
    ours, floor = times
    table(title, {f"{name}: ms": values for name, values in times.items()} | {
        f"{ours} / {floor}": ratios(times[ours], times[floor]),
    })  # fmt: skip
    print()


def bench_group(labels: GroupLabels, schema: StoreSchema, scratch: Path, runs: int) -> None:
    path = scratch / "group.zarr"
    writer = StoreWriter.open(path, schema)
    raw = b"".join(
        part.tobytes() for part in (labels.classes, labels.scores, labels.tail_logsumexp) if part is not None
    )
    names, raw_file = (f"g{i}" for i in count()), scratch / "raw"

    def write() -> None:
        writer.write(next(names), labels, tar=TAR, provenance={})

    def write_raw() -> None:
        with raw_file.open("wb") as file:
            file.write(raw)
            os.fsync(file.fileno())

    against_floor(
        f"write a group of {GROUP_ROWS:,} rows", {"encode and commit": write, "raw bytes and fsync": write_raw}, runs
    )
    group = LabelStore.open(path).group("g1")
    against_floor(
        f"read a group of {GROUP_ROWS:,} rows",
        {"all maps": group.read, "raw bytes": lambda: np.fromfile(raw_file, np.uint8)},
        runs,
    )
    rows = cycle(np.random.default_rng(0).integers(0, GROUP_ROWS, 100).tolist())
    size = len(raw) // GROUP_ROWS

    def read_row() -> None:
        row = next(rows)
        group.read(row, row + 1)

    def read_raw_row() -> None:
        np.fromfile(raw_file, np.uint8, count=size, offset=next(rows) * size)

    against_floor("read one row", {"one row": read_row, "its raw bytes": read_raw_row}, 10 * runs)


def read_each(path: Path, name: str) -> None:
    """Read one small file of every group."""
    for group in os.listdir(path):
        if (file := path / group / name).is_file():
            file.read_bytes()


def bench_big_store(path: Path, groups: int, runs: int) -> None:
    store = LabelStore.open(path)
    key = store.group(store.names()[-1]).keys[-1]
    title = f"{groups:,} groups, {groups * GROUP_ROWS:,} rows"
    against_floor(
        title,
        {"list the groups": lambda: LabelStore.open(path).names(), "list the folder": lambda: os.listdir(path)},
        runs,
    )
    against_floor(
        title,
        {
            "open every group": lambda: list(LabelStore.open(path)),
            "read every `zarr.json`": lambda: read_each(path, "zarr.json"),
        },
        runs,
    )
    against_floor(
        title,
        {
            "find the last key": lambda: LabelStore.open(path).find(key),
            "read every keys' file": lambda: read_each(path, KEYS_FILE),
        },
        runs,
    )
    show = [sys.executable, "-m", "store.cli.main", "show", str(path), key]
    imports = [sys.executable, "-c", "import zarr, rich.table, click"]
    against_floor(
        title,
        {
            "`relabel-store show STORE KEY`": lambda: subprocess.run(show, check=True, capture_output=True),
            "imports of zarr, rich and click": lambda: subprocess.run(imports, check=True),
        },
        runs,
    )
    before = peak_mib()
    for group in LabelStore.open(path):
        group.read()
    table("peak memory", {
        "before reading every map: MiB": [before],
        "after: MiB": [peak_mib()],
        "after / before": [peak_mib() / before],
    })  # fmt: skip


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--groups", default=1024, show_default=True)
@click.option("--runs", default=15, show_default=True, type=click.IntRange(1))
def main(labels: str, scratch: Path, groups: int, runs: int) -> None:
    """Time each operation against its floor."""
    maps, schema = read_maps(labels), LabelStore.open(labels).schema
    scratch.mkdir(parents=True)
    try:
        _, one, _ = next(draw_groups(maps, schema, Plan(rows=GROUP_ROWS, groups=1)))
        bench_group(one, schema, scratch, runs)
        drawn = draw_groups(maps, schema, Plan(rows=groups * GROUP_ROWS, groups=groups))
        make_big_store(scratch / "big.zarr", schema, one, ((name, labels.keys) for name, labels, _ in drawn))
        bench_big_store(scratch / "big.zarr", groups, runs)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
