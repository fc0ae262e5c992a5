"""The store's times: reading and committing a group, opening and searching a store of ImageNet's size.

Run with `python -m benchmarks.bench_store --labels STORE --scratch FOLDER`. STORE holds real maps, made as
docs/real_photographs.md says; they are drawn at random into groups of 1,251 rows, no map twice within the rows that are
compressed together. FOLDER needs 5 GB for 1,024 such groups. Each time has a floor, with which it takes turns.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import count, cycle
from pathlib import Path

import click
import numpy as np

from benchmarks.memory import peak_mib
from benchmarks.tables import ratios, table
from benchmarks.turns import time_turns
from store.command import Command
from store.group import LabelRows
from store.labels import GroupLabels
from store.layout import CHUNK_ROWS, array_specs, encode_array
from store.reader import LabelStore
from store.schema import CommitRecord, ObjectRecord, StoreSchema, TarIdentity
from store.writer import open_root, publish, write_group

ROWS = 1_251  # of ImageNet's 1,281,167 images in 1,024 shards
KEYS_FILE = "keys/c/0"
TAR = TarIdentity(size=1 << 40, mtime_ns=0, sha256="0" * 64)


def read_maps(store: LabelStore) -> LabelRows:
    parts = [(group.read(), group.usable()) for group in store]
    tails = [maps.tail[usable] for maps, usable in parts if maps.tail is not None]
    return LabelRows(
        classes=np.concatenate([maps.classes[usable] for maps, usable in parts]),
        scores=np.concatenate([maps.scores[usable] for maps, usable in parts]),
        tail=np.concatenate(tails),
    )


def draw_labels(maps: LabelRows, rng: np.random.Generator) -> GroupLabels:
    """A group of real maps; within a chunk none comes twice, so that they compress as they would in real data."""
    chunks = -(-ROWS // CHUNK_ROWS)
    rows = np.concatenate([rng.permutation(len(maps.classes))[:CHUNK_ROWS] for _ in range(chunks)])[:ROWS]
    assert maps.tail is not None
    return GroupLabels(
        classes=maps.classes[rows],
        scores=maps.scores[rows],
        tail=maps.tail[rows],
        keys=tuple(f"n{rng.integers(1 << 27):08}_{i}" for i in range(ROWS)),
        offsets=np.stack([np.arange(ROWS) * 110_000, rng.integers(60_000, 160_000, ROWS)], axis=1).astype(np.uint64),
        digests=rng.integers(0, 1 << 63, ROWS).astype(np.uint64),
        targets=rng.integers(0, 1000, ROWS).astype(np.int32),
    )


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
    schema = open_root(path, schema)
    raw = b"".join(part.tobytes() for part in (labels.classes, labels.scores, labels.tail) if part is not None)
    names, raw_file = (f"g{i}" for i in count()), scratch / "raw"

    def write() -> None:
        write_group(path, next(names), labels, schema=schema, tar=TAR, provenance={})

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
    rng = np.random.default_rng(1)
    schema = open_root(path, schema)
    place, shared = LabelStore.open(path).place, dict[str, bytes]()
    for i in range(groups):
        labels = draw_labels(maps, rng)
        for spec in array_specs(schema, ROWS, with_tail=True):
            if spec.sharded and shared.get(f"{spec.name}/zarr.json"):
                continue
            values = np.array(labels.keys, dtype=object) if spec.name == "keys" else getattr(labels, spec.name)
            shared |= encode_array(spec, values)
        objects = {name: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for name, data in shared.items()}
        record = CommitRecord(rows=ROWS, tar=TAR, teacher_digest=schema.teacher.digest, prefix="", objects=objects,
                              quarantined=(), provenance={})  # fmt: skip
        publish(place, f"imagenet1k-train-{i:04}", shared, record)


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
    show = [sys.executable, "-m", "store.cli", "show", str(path), key]
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
    store = LabelStore.open(labels)
    maps = read_maps(store)
    scratch.mkdir(parents=True)
    try:
        one = draw_labels(maps, np.random.default_rng(0))
        bench_group(one, store.schema, scratch, runs)
        make_big_store(maps, store.schema, scratch / "big.zarr", groups)
        bench_big_store(scratch / "big.zarr", groups, runs)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
