"""The store's times: reading and committing a group, opening and searching a store of ImageNet's size.

Run with `python -m benchmarks.speed.store --labels STORE --scratch FOLDER`. STORE holds real maps, made as
docs/real_photographs.md says; they are drawn at random into groups of 1,251 rows, no map twice within the rows that are
compressed together. FOLDER needs 5 GB for 1,024 such groups. Each time has a floor, with which it takes turns.
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

from benchmarks.copies import TAR, publish_objects
from benchmarks.memory import peak_mib
from benchmarks.scale.data import Plan, draw_groups, read_maps
from benchmarks.tables import ratios, table
from benchmarks.turns import time_turns
from store.cli.base import Command
from store.format.arrays import array_specs, encode_array
from store.format.schema import StoreSchema
from store.maps.types import LabelRows
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter

ROWS = 1_251  # of ImageNet's 1,281,167 images in 1,024 shards
KEYS_FILE = "keys/c/0"


def against_floor(title: str, ways: Mapping[str, Callable[[], object]], runs: int) -> None:
    """A table of the milliseconds of one way and of its floor, the second, and of how many times the floor that is."""
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
        f"write a group of {ROWS:,} rows", {"encode and commit": write, "raw bytes and fsync": write_raw}, runs
    )
    group = LabelStore.open(path).group("g1")
    against_floor(
        f"read a group of {ROWS:,} rows",
        {"all maps": group.read, "raw bytes": lambda: np.fromfile(raw_file, np.uint8)},
        runs,
    )
    rows = cycle(np.random.default_rng(0).integers(0, ROWS, 100).tolist())
    size = len(raw) // ROWS

    def read_row() -> None:
        row = next(rows)
        group.read(row, row + 1)

    def read_raw_row() -> None:
        np.fromfile(raw_file, np.uint8, count=size, offset=next(rows) * size)

    against_floor("read one row", {"one row": read_row, "its raw bytes": read_raw_row}, 10 * runs)


def make_big_store(maps: LabelRows, schema: StoreSchema, path: Path, groups: int) -> None:
    """Groups that share label arrays but not keys: encoding a thousand would only take time."""
    writer = StoreWriter.open(path, schema)
    shared = dict[str, bytes]()
    for name, labels, _ in draw_groups(maps, schema, Plan(rows=groups * ROWS, groups=groups)):
        for spec in array_specs(schema, ROWS, with_tail=True):
            if spec.sharded and shared.get(f"{spec.name}/zarr.json"):
                continue
            values = np.array(labels.keys, dtype=object) if spec.name == "keys" else getattr(labels, spec.name)
            shared |= encode_array(spec, values)
        publish_objects(writer, name, shared, rows=ROWS)


def read_each(path: Path, name: str) -> None:
    """The bytes of one small file of every group."""
    for group in os.listdir(path):
        if (file := path / group / name).is_file():
            file.read_bytes()


def bench_big_store(path: Path, groups: int, runs: int) -> None:
    store = LabelStore.open(path)
    key = store.group(store.names()[-1]).keys[-1]
    title = f"{groups:,} groups, {groups * ROWS:,} rows"
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
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="An empty folder to fill.")
@click.option("--groups", default=1024, show_default=True)
@click.option("--runs", default=15, show_default=True, type=click.IntRange(1))
def main(labels: str, scratch: Path, groups: int, runs: int) -> None:
    """Time everything against its floor."""
    maps, schema = read_maps(labels), LabelStore.open(labels).schema
    scratch.mkdir(parents=True)
    try:
        _, one, _ = next(draw_groups(maps, schema, Plan(rows=ROWS, groups=1)))
        bench_group(one, schema, scratch, runs)
        make_big_store(maps, schema, scratch / "big.zarr", groups)
        bench_big_store(scratch / "big.zarr", groups, runs)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
