"""`relabel-store audit` and `browse` on a store of ImageNet's size: seconds and memory.

Run with `python -m benchmarks.bench_browse --scratch FOLDER`. The maps are random, the images small, and all groups
share their large files by hard links, so FOLDER needs 600 MB; keys, offsets and commit records are each group's own.
"""

import io
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import simplejpeg

from store.labels import GroupLabels
from store.layout import array_specs, encode_array
from store.reader import LabelStore
from store.schema import CommitRecord, ObjectRecord, StoreSchema, TarIdentity, TeacherIdentity, View
from store.shards import image_digest, index_shard
from store.writer import open_root, publish

ROWS = 1_251  # of ImageNet's 1,281,167 images in 1,024 shards
SCHEMA = StoreSchema(
    teacher=TeacherIdentity(architecture="random", arguments={}, digest="00"),
    view=View(input_size=(480, 480), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    num_classes=1000,
    top_k=5,
    map_size=(15, 15),
    class_names=tuple(f"class {i}" for i in range(1000)),
)


def write_shards(folder: Path, groups: int) -> None:
    """One tar of noisy images of 375 x 500 pixels, twenty of them in turn, under all shards' names."""
    rng = np.random.default_rng(0)
    images = [
        simplejpeg.encode_jpeg(rng.integers(0, 256, (375, 500, 1), np.uint8).repeat(3, 2) // 4, quality=60)
        for _ in range(20)
    ]
    first = folder / "train-0000.tar"
    with tarfile.open(first, "w") as tar:
        for row in range(ROWS):
            info = tarfile.TarInfo(f"row{row:04}.jpg")
            info.size = len(data := images[row % len(images)])
            tar.addfile(info, io.BytesIO(data))
    for i in range(1, groups):
        os.link(first, folder / f"train-{i:04}.tar")


def make_labels(shard: Path, rng: np.random.Generator) -> GroupLabels:
    samples = index_shard(shard).samples
    data = shard.read_bytes()
    shape = (ROWS, SCHEMA.top_k, *SCHEMA.map_size)
    first = rng.integers(0, 1000, (ROWS, 1, *SCHEMA.map_size))
    return GroupLabels(
        classes=((first + np.arange(5)[:, None, None] * 7) % 1000).astype(np.uint16),
        scores=-np.sort(-rng.normal(4, 3, shape), axis=1).astype(np.float16),
        tail=rng.normal(2, 1, (ROWS, *SCHEMA.map_size)).astype(np.float16),
        keys=tuple(sample.key for sample in samples),
        offsets=np.array([(sample.offset, sample.length) for sample in samples], np.uint64),
        digests=np.array([image_digest(data[s.offset : s.offset + s.length]) for s in samples], np.uint64),
        targets=rng.integers(0, 1000, ROWS).astype(np.int32),
    )


def make_store(path: Path, labels: GroupLabels, groups: int) -> None:
    """Groups that differ in their keys."""
    rng = np.random.default_rng(1)
    schema = open_root(path, SCHEMA)
    place, shared = LabelStore.open(path).place, dict[str, bytes]()
    specs = array_specs(schema, ROWS, with_tail=True)
    for spec in specs:
        if spec.name != "keys":
            shared |= encode_array(spec, getattr(labels, spec.name))
    tar = TarIdentity(size=1 << 40, mtime_ns=0, sha256="0" * 64)
    keys_spec = next(spec for spec in specs if spec.name == "keys")
    for i in range(groups):
        keys = np.array([f"n{number:08}_{row}" for row, number in enumerate(rng.integers(0, 1 << 26, ROWS))], object)
        objects = shared | encode_array(keys_spec, keys)
        records = {
            name: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for name, data in objects.items()
        }
        record = CommitRecord(rows=ROWS, tar=tar, teacher_digest=schema.teacher.digest, prefix="", objects=records,
                              quarantined=(), provenance={})  # fmt: skip
        publish(place, f"train-{i:04}", objects, record)
        for name in shared if i else ():
            copy, first = path / f"train-{i:04}" / name, path / "train-0000" / name
            copy.unlink()
            os.link(first, copy)


def audit(scratch: Path) -> float:
    """Seconds of an audit that writes every line and the index."""
    command = [sys.executable, "-m", "store.cli", "audit", str(scratch / "labels.zarr"), "--json"]
    start = time.perf_counter()
    subprocess.run([*command, "--csv", str(scratch / "audit.csv"), "--index", str(scratch / "index.npz")],
                   stdout=subprocess.DEVNULL, check=True)  # fmt: skip
    return time.perf_counter() - start


def read_all(store: LabelStore) -> float:
    """Seconds of reading every map, the floor of an audit."""
    start = time.perf_counter()
    for group in store:
        for first in range(0, len(group), 256):
            group.read(first, min(first + 256, len(group)))
    return time.perf_counter() - start


def bench_audit(scratch: Path, rows: int) -> None:
    """The audit of a whole store, once: it takes minutes."""
    audited = audit(scratch)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    floor = read_all(LabelStore.open(scratch / "labels.zarr"))
    print(f"audit of {rows:,} rows, once: {audited:,.0f} s, {rows / audited:,.0f} maps/s, peak {memory:,.0f} MiB; "
          f"reading alone {floor:,.0f} s; {audited / floor:.2f} times that\n")  # fmt: skip


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode("utf-8", "replace"))


def page_and_thumbs(url: str, path: str) -> float:
    """Seconds for a page and all its thumbnails, one after the other."""
    start = time.perf_counter()
    page = get(url + path)
    for thumb in re.findall(r'<img src="(/thumb[^"]+)"', page):
        get(url + thumb.replace("&amp;", "&"))
    return time.perf_counter() - start


def peak_mib(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def start_browse(scratch: Path, *options: str) -> tuple[subprocess.Popen[str], str, float]:
    """The process, its address and the seconds until it answered its first page."""
    command = [sys.executable, "-m", "store.cli", "browse", str(scratch / "labels.zarr"), "--port", "0"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--shards", str(scratch / "train-*.tar"), *options], stdout=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().split("/ ")[0]
    get(url + "/")
    return process, url, time.perf_counter() - start


def tell(what: str, seconds: list[float]) -> None:
    values = sorted(1000 * value for value in seconds)
    print(f"| {what} | {statistics.median(values):,.0f} ms | {values[0]:,.0f} to {values[-1]:,.0f} | {len(values)} |")


def timed_pages(url: str, paths: list[str]) -> list[float]:
    return [page_and_thumbs(url, path) for path in paths]


def bench(scratch: Path, groups: int, runs: int) -> None:
    starts: dict[str, list[float]] = {"": [], "--audit": []}
    index = scratch / "index.npz"
    for _ in range(runs):
        for option in starts:  # taking turns
            process, _, seconds = start_browse(scratch, *([option, str(index)] if option else []))
            starts[option].append(seconds)
            process.kill()
            process.wait()
    tell("start to first page", starts[""])
    tell("start to first page with --audit", starts["--audit"])
    process, url, _ = start_browse(scratch, "--audit", str(index))
    try:
        first = peak_mib(process)
        last = f"train-{groups - 1:04}"
        middle = [f"train-{i:04}:{(97 * i) % ROWS}" for i in range(0, groups, max(1, groups // 25))]
        tell("page of 24 with thumbnails, anywhere", timed_pages(url, [f"/?at={at}" for at in middle]))
        tell("page of 24 with thumbnails, sorted", timed_pages(url, [f"/?sort=entropy&at={24 * i}" for i in range(10)]))
        tell("one sample", timed_pages(url, [f"/sample?at={at}" for at in middle]))
        key = LabelStore.open(scratch / "labels.zarr").group(last).keys[-1]
        tell("search for the last key", timed_pages(url, [f"/?key={key}"] * 5))
        tell("search for a part of a key that is nowhere", timed_pages(url, ["/?key=nowhere"] * 5))
        tell("search for a class, one page", timed_pages(url, [f"/?class={c}" for c in range(5)]))
        at, looked = "/?class=class+1000", 0
        while looked < 3 and (more := re.search(r'rel="next" href="([^"]+)"', get(url + at))):
            at, looked = more[1].replace("&amp;", "&"), looked + 1
        print(f"\nserver's memory: peak {first:,.0f} MiB after the first page, {peak_mib(process):,.0f} MiB at the end")
    finally:
        process.kill()
        process.wait()


@click.command()
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="An empty folder to fill.")
@click.option("--groups", default=1024, show_default=True)
@click.option("--runs", default=7, show_default=True, help="Starts of the server.")
def main(scratch: Path, groups: int, runs: int) -> None:
    """Print the report."""
    scratch.mkdir(parents=True)
    try:
        write_shards(scratch, groups)
        labels = make_labels(scratch / "train-0000.tar", np.random.default_rng(0))
        make_store(scratch / "labels.zarr", labels, groups)
        bench_audit(scratch, groups * ROWS)
        print(f"| {groups:,} groups, {groups * ROWS:,} rows | median | range | runs |\n|---|---|---|---|")
        bench(scratch, groups, runs)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
