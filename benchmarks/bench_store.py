"""The store: bytes of a map, reading and committing a group, opening and searching a store of ImageNet's size.

Run with `python -m benchmarks.bench_store --labels STORE --scratch FOLDER`. STORE holds real maps, made as
docs/real_photographs.md says; they are drawn at random into groups of 1,251 rows, no map twice within the rows that are
compressed together. FOLDER needs 5 GB for 1,024 such groups. Every time has a floor beside it, taken in the same run.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import click
import numpy as np

from store.group import LabelRows
from store.labels import GroupLabels
from store.layout import CHUNK_ROWS, array_specs, encode_array
from store.reader import LabelStore
from store.schema import CommitRecord, ObjectRecord, StoreSchema, TarIdentity
from store.writer import open_root, publish, write_group

ROWS = 1_251  # of ImageNet's 1,281,167 images in 1,024 shards
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


def timed(function: Callable[[int], object], runs: int) -> list[float]:
    """Seconds of each run, after one that is not counted."""
    function(0)
    seconds = []
    for i in range(1, runs + 1):
        start = time.perf_counter()
        function(i)
        seconds.append(time.perf_counter() - start)
    return seconds


def tell(what: str, seconds: list[float], *, unit: str = "ms", per: float = 1e3) -> float:
    values = sorted(value * per for value in seconds)
    middle = statistics.median(values)
    print(f"| {what} | {middle:,.2f} {unit} | {values[0]:,.2f} to {values[-1]:,.2f} | {len(values)} |", flush=True)
    return middle


def bench_bytes(labels: GroupLabels, schema: StoreSchema) -> None:
    sizes = {}
    for spec in array_specs(schema, ROWS, with_tail=True):
        values = np.array(labels.keys, dtype=object) if spec.name == "keys" else getattr(labels, spec.name)
        sizes[spec.name] = sum(map(len, encode_array(spec, values).values())) / ROWS
    raw = 4 * labels.classes[0].size
    main = sizes["classes"] + sizes["scores"]
    print(f"\nbytes an image: classes + scores {main:,.0f} of {raw:,} raw ({main / raw:.0%})")
    print(f"all arrays {sum(sizes.values()):,.0f}: {', '.join(f'{name} {size:,.0f}' for name, size in sizes.items())}")


def bench_group(labels: GroupLabels, schema: StoreSchema, scratch: Path) -> None:
    path = scratch / "group.zarr"
    schema = open_root(path, schema)
    raw = b"".join(part.tobytes() for part in (labels.classes, labels.scores, labels.tail) if part is not None)

    def write(i: int) -> None:
        write_group(path, f"g{i}", labels, schema=schema, tar=TAR, provenance={})

    def write_raw(i: int) -> None:
        with (scratch / f"raw{i}").open("wb") as file:
            file.write(raw)
            os.fsync(file.fileno())

    print("\n| one group of 1,251 rows | median | range | runs |\n|---|---|---|---|")
    tell("encode and commit", timed(write, 15))
    tell("floor: write the raw bytes and fsync", timed(write_raw, 15))
    group = LabelStore.open(path).group("g1")
    seconds = timed(lambda _: group.read(), 30)
    tell("read all maps", seconds)
    print(f"| = maps/s | {ROWS / statistics.median(seconds):,.0f} | {ROWS / max(seconds):,.0f} to "
          f"{ROWS / min(seconds):,.0f} | {len(seconds)} |")  # fmt: skip
    tell("floor: read the raw bytes", timed(lambda i: np.fromfile(scratch / f"raw{1 + i % 15}", np.uint8), 30))
    rows = np.random.default_rng(0).integers(0, ROWS, 101)
    tell("one row (maps only)", timed(lambda i: group.read(int(rows[i]), int(rows[i]) + 1), 100))


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


def bench_big_store(path: Path, groups: int) -> None:
    store = LabelStore.open(path)
    key = store.group(store.names()[-1]).keys[-1]
    print(f"\n| {groups:,} groups, {groups * ROWS:,} rows | median | range | runs |\n|---|---|---|---|")
    tell("open the store", timed(lambda _: LabelStore.open(path), 15))
    tell("open it and list its groups", timed(lambda _: LabelStore.open(path).names(), 15))
    tell("floor: list the folder", timed(lambda _: os.listdir(path), 15))
    tell("open every group, sizes checked", timed(lambda _: [None for _ in LabelStore.open(path)], 5))
    tell("find the last key", timed(lambda _: LabelStore.open(path).find(key), 5))
    show = [sys.executable, "-m", "store.cli", "show", str(path), key]
    tell("`relabel-store show LABELS KEY`, whole process",
         timed(lambda _: subprocess.run(show, check=True, capture_output=True), 9))  # fmt: skip
    start = [sys.executable, "-c", "import zarr, rich.table, click"]
    tell("floor: import zarr, rich and click", timed(lambda _: subprocess.run(start, check=True), 9))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for group in LabelStore.open(path):
        group.read()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\npeak memory before reading every map {before / 1024:,.0f} MiB, after {after / 1024:,.0f} MiB")


@click.command()
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="An empty folder to fill.")
@click.option("--groups", default=1024, show_default=True)
def main(labels: str, scratch: Path, groups: int) -> None:
    """Print the report."""
    store = LabelStore.open(labels)
    maps = read_maps(store)
    scratch.mkdir(parents=True)
    try:
        one = draw_labels(maps, np.random.default_rng(0))
        bench_bytes(one, store.schema)
        bench_group(one, store.schema, scratch)
        make_big_store(maps, store.schema, scratch / "big.zarr", groups)
        bench_big_store(scratch / "big.zarr", groups)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
