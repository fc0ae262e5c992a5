"""Times `relabel-store audit` and `browse` on a store of ImageNet's size, and measures their memory.

    python -m benchmarks.speed.browse --scratch FOLDER

The maps are random and the images small. Groups differ in their names, keys and commit records only; their other files
are hard links, so that FOLDER needs 600 MB.

Floors, which take turns with them: reading every map, for an audit; a process that imports the server's libraries, for
its start; Python's own server of the same bytes as files, for a page.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import simplejpeg

from benchmarks.measure import milliseconds, peak_mib, ratios, table, time_turns
from benchmarks.resample import GROUP_ROWS
from benchmarks.stores import make_big_store
from store.cli.base import Command
from store.cli.options import LocalPath
from store.format.schema import Preprocessing, StoreSchema, TeacherIdentity
from store.reader import LabelStore
from store.shards.index import image_digest, index_shard
from store.writer import GroupLabels

AUDIT = """
import atexit, sys
from benchmarks.measure import peak_mib
from store.cli.main import main
atexit.register(lambda: print(peak_mib(), file=sys.stderr))
main()
"""
SCHEMA = StoreSchema(
    score_kind="centred_logit",
    teacher=TeacherIdentity(architecture="random", arguments={}, digest="00"),
    preprocessing=Preprocessing(input_size=(480, 480), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    num_classes=1000,
    top_k=5,
    map_size=(15, 15),
    class_names=tuple(f"class {i}" for i in range(1000)),
)


def write_shards(folder: Path, groups: int) -> None:
    """Write a tar of twenty noisy images of 375 x 500 pixels in turn, and link it under all shards' names."""
    rng = np.random.default_rng(0)
    images = [
        simplejpeg.encode_jpeg(rng.integers(0, 256, (375, 500, 1), np.uint8).repeat(3, 2) // 4, quality=60)
        for _ in range(20)
    ]
    first = folder / "train-0000.tar"
    with tarfile.open(first, "w") as tar:
        for row in range(GROUP_ROWS):
            info = tarfile.TarInfo(f"row{row:04}.jpg")
            info.size = len(data := images[row % len(images)])
            tar.addfile(info, io.BytesIO(data))
    for i in range(1, groups):
        os.link(first, folder / f"train-{i:04}.tar")


def make_labels(shard: Path, rng: np.random.Generator) -> GroupLabels:
    samples = index_shard(shard).samples
    data = shard.read_bytes()
    shape = (GROUP_ROWS, SCHEMA.top_k, *SCHEMA.map_size)
    first = rng.integers(0, 1000, (GROUP_ROWS, 1, *SCHEMA.map_size))
    return GroupLabels(
        classes=((first + np.arange(5)[:, None, None] * 7) % 1000).astype(np.uint16),
        scores=-np.sort(-np.abs(rng.normal(4, 3, shape)), axis=1).astype(np.float16),
        tail_logsumexp=rng.normal(2, 1, (GROUP_ROWS, *SCHEMA.map_size)).astype(np.float16),
        keys=tuple(sample.key for sample in samples),
        offsets=np.array([(sample.offset, sample.length) for sample in samples], np.uint64),
        digests=np.array([image_digest(data[s.offset : s.offset + s.length]) for s in samples], np.uint64),
        labels=rng.integers(0, 1000, GROUP_ROWS).astype(np.int32),
    )


def random_keys(groups: int) -> Iterator[tuple[str, list[str]]]:
    """Names and keys of the groups; the keys are like ImageNet's."""
    rng = np.random.default_rng(1)
    for i in range(groups):
        numbers = enumerate(rng.integers(0, 1 << 26, GROUP_ROWS))
        yield f"train-{i:04}", [f"n{number:08}_{row}" for row, number in numbers]


def audit(scratch: Path) -> tuple[float, float]:
    """Seconds and peak MiB of an audit that writes a line for every image, and the index."""
    command = [sys.executable, "-c", AUDIT, "audit", str(scratch / "labels.zarr"), "--json"]
    start = time.perf_counter()
    run = subprocess.run([*command, "--csv", str(scratch / "audit.csv"), "--index", str(scratch / "index.npz")],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)  # fmt: skip
    return time.perf_counter() - start, float(run.stderr.splitlines()[-1])


def read_all(store: LabelStore) -> float:
    """Seconds of reading every map, the floor of an audit."""
    start = time.perf_counter()
    for group in store:
        for first in range(0, len(group), 256):
            group.read(first, min(first + 256, len(group)))
    return time.perf_counter() - start


def bench_audit(scratch: Path, rows: int, runs: int) -> None:
    """Time audits of the whole store, without a round to warm up, since one takes minutes."""
    turns = [(*audit(scratch), read_all(LabelStore.open(scratch / "labels.zarr"))) for _ in range(runs)]
    audited, memory, read = zip(*turns, strict=True)
    table(f"audit of {rows:,} rows", {
        "audit: maps/s": [rows / seconds for seconds in audited],
        "reading every map: maps/s": [rows / seconds for seconds in read],
        "audit / reading, in time": ratios(audited, read),
        "peak memory of an audit: MiB": memory,
    })  # fmt: skip
    print()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def page_and_thumbs(url: str, path: str) -> list[bytes]:
    """Fetch a page, then its thumbnails one after the other."""
    page = get(url + path)
    thumbs = re.findall(r'<img src="(/thumb[^"]+)"', page.decode("utf-8", "replace"))
    return [page, *(get(url + thumb.replace("&amp;", "&")) for thumb in thumbs)]


def start_browse(scratch: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the server and wait for its first page; gives the process and its address."""
    command = [sys.executable, "-m", "store.cli.main", "browse", str(scratch / "labels.zarr"), "--port", "0"]
    process = subprocess.Popen([*command, "--shards", str(scratch / "train-*.tar"), *options], stdout=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().split("/ ")[0]
    get(url + "/")
    return process, url


def import_libraries() -> None:
    subprocess.run([sys.executable, "-c", "import zarr, starlette.applications, uvicorn, jinja2"], check=True)


def bench_start(scratch: Path, runs: int) -> None:
    def start(*options: str) -> None:
        process, _ = start_browse(scratch, *options)
        process.kill()
        process.wait()

    plain, audited, imports = "start to first page", "start to first page with --audit", "imports"
    times = time_turns(
        {plain: start, audited: lambda: start("--audit", str(scratch / "index.npz")), imports: import_libraries}, runs
    )
    table("`relabel-store browse`", {f"{name}: ms": values for name, values in times.items()} | {
        "start / imports": ratios(times[plain], times[imports]),
        "start with --audit / imports": ratios(times[audited], times[imports]),
    })  # fmt: skip
    print()


@contextmanager
def serve_files(folder: Path) -> Iterator[str]:
    """Serve a folder's files with Python's own server; gives its address."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{re.findall(r'port ([0-9]+)', process.stdout.readline())[0]}"
        finally:
            process.kill()


def timed_page(url: str, path: str, folder: Path, files_url: str) -> tuple[float, float]:
    """Milliseconds of a page with all thumbnails, and of the same bytes as files."""
    answers: list[bytes] = []
    ours = milliseconds(lambda: answers.extend(page_and_thumbs(url, path)))
    for i, answer in enumerate(answers):
        (folder / str(i)).write_bytes(answer)
    return ours, milliseconds(lambda: [get(f"{files_url}/{i}") for i in range(len(answers))])


def bench_pages(title: str, url: str, paths: Sequence[str], scratch: Path) -> None:
    folder = scratch / "files"
    folder.mkdir()
    with serve_files(folder) as files_url:
        times = [timed_page(url, path, folder, files_url) for path in paths]
    shutil.rmtree(folder)
    ours, floor = zip(*times, strict=True)
    table(title, {"browse: ms": ours, "files: ms": floor, "browse / files": ratios(ours, floor)})
    print()


def bench_browse(scratch: Path, groups: int) -> None:
    process, url = start_browse(scratch, "--audit", str(scratch / "index.npz"))
    try:
        first, last = peak_mib(process.pid), f"train-{groups - 1:04}"
        middle = [f"train-{i:04}:{(97 * i) % GROUP_ROWS}" for i in range(0, groups, max(1, groups // 25))]
        key = LabelStore.open(scratch / "labels.zarr").group(last).keys[-1]
        pages = {
            "page of 24 with thumbnails, anywhere": [f"/?at={at}" for at in middle],
            "page of 24 with thumbnails, sorted": [f"/?sort=entropy&at={24 * i}" for i in range(10)],
            "one sample": [f"/sample?at={at}" for at in middle],
            "search for the last key": [f"/?key={key}"] * 5,
            "search for a part of a key that is missing": ["/?key=missing"] * 5,
            "search for a class, one page": [f"/?class={c}" for c in range(5)],
        }
        for title, paths in pages.items():
            bench_pages(title, url, paths, scratch)
        print(
            f"Server's memory: peak {first:,.0f} MiB after the first page, {peak_mib(process.pid):,.0f} MiB at the end"
        )
    finally:
        process.kill()
        process.wait()


@click.command(cls=Command)
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--groups", default=1024, show_default=True)
@click.option("--audits", default=1, show_default=True)
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1), help="Starts of the server.")
def main(scratch: Path, groups: int, audits: int, runs: int) -> None:
    """Time audits, starts of the server, and pages."""
    scratch.mkdir(parents=True)
    try:
        write_shards(scratch, groups)
        labels = make_labels(scratch / "train-0000.tar", np.random.default_rng(0))
        make_big_store(scratch / "labels.zarr", SCHEMA, labels, random_keys(groups), linked=True)
        bench_audit(scratch, groups * GROUP_ROWS, audits)
        bench_start(scratch, runs)
        bench_browse(scratch, groups)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
