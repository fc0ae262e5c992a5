"""Measures a store of ImageNet-1k's size, without pixels: write, verify, look up, one epoch of label reads.

Run with `python -m benchmarks.scale --labels STORE --scratch FOLDER`. STORE holds real maps, made as
docs/real_photographs.md says. FOLDER is created and removed; it needs some 6 GB. A tenth of the rows is measured first,
so that the last column shows how cost grows: 10 is linear. docs/scale.md explains each line.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from benchmarks.resample import Plan, read_maps
from benchmarks.scale.paper import CLASSES, IMAGENET_21K, mean_name, open_named, order_21k
from benchmarks.scale.store import bench_store, max_bytes
from benchmarks.stages import Figures, end_processes, in_process, signals_ignored, stop_on_sigterm
from pipelines.machine import describe_machine
from store.cli.base import Command, OneLineError
from store.cli.options import LocalPath
from store.reader import LabelStore

PARTS = 64  # of a batch: 8 ranks with 8 workers each


def bench_size(given: str, path: Path, plan: Plan, batch_size: int) -> Figures:
    """Measure all stages on one store, then remove it."""
    from benchmarks.scale.epoch import bench_training

    sizes: Figures = {"rows": plan.rows, "groups": plan.groups}
    try:
        return sizes | bench_store(given, path, plan) | bench_training(path, plan, batch_size)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def bench_paper(given: str, scratch: Path) -> Figures:
    """Measure what docs/scale.md computes ImageNet-21k's costs from."""
    click.echo("ImageNet-21k: order, names", err=True)
    made = in_process(order_21k)
    letters = mean_name(given)
    few = in_process(partial(open_named, given, scratch / "few.zarr", 1000, letters))
    many = in_process(partial(open_named, given, scratch / "many.zarr", CLASSES, letters))
    return {
        f"order of {IMAGENET_21K.rows:,} rows: s": made.value,
        f"order of {IMAGENET_21K.rows:,} rows: peak MiB": made.peak_mib,
        "a process before it: MiB": made.floor_mib,
        f"open a group, 1,000 class names of {letters} letters: ms": few.value,
        f"open a group, {CLASSES:,} class names of {letters} letters: ms": many.value,
    }


def text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def print_tables(small: Figures, full: Figures, paper: Figures) -> None:
    """Print both sizes side by side."""
    print(f"| once each | {text(small['rows'])} rows | {text(full['rows'])} rows | ratio |\n|---|---|---|---|")
    for what, value in full.items():
        print(f"| {what} | {text(small[what])} | {text(value)} | {value / small[what]:.2f} |")
    print("\n| of ImageNet-21k | |\n|---|---|")
    for what, value in paper.items():
        print(f"| {what} | {text(value)} |")
    print(f"\n{describe_machine()}")


def check_room(given: str, scratch: Path, rows: int) -> None:
    """Raise an error if there are too few maps, or too little space on the disk."""
    read_maps(given)
    needed = max_bytes(LabelStore.open(given).schema, rows)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        raise OneLineError(f"{scratch}: up to {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


@contextmanager
def scratch_folder(path: Path) -> Iterator[None]:
    """A new folder, which is removed however the block ends."""
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise OneLineError(f"{path}: cannot be made: {error.strerror}; name a folder that does not exist") from error
    try:
        yield
    finally:
        with signals_ignored():  # removing gigabytes takes seconds
            end_processes()
            shutil.rmtree(path)


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--rows", default=1_281_167, show_default=True, type=click.IntRange(10))
@click.option("--groups", default=1024, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=1024, show_default=True, type=click.IntRange(1))
def main(labels: str, scratch: Path, rows: int, groups: int, batch_size: int) -> None:
    """Print the costs of a store of so many rows, and of a tenth of them."""
    plan = Plan(rows=rows, groups=groups)
    if groups > rows // 10:
        raise OneLineError(f"{groups:,} groups of {rows:,} rows have too few rows each")
    if batch_size % PARTS:
        raise OneLineError(f"batch size {batch_size:,}: not a multiple of {PARTS}")
    if batch_size > rows // 10:
        raise OneLineError(f"batch size {batch_size:,}: more than a tenth of the {rows:,} rows")
    with scratch_folder(scratch):
        check_room(labels, scratch, rows)
        small = bench_size(labels, scratch / "tenth.zarr", plan.tenth(), batch_size)
        full = bench_size(labels, scratch / "full.zarr", plan, batch_size)
        print_tables(small, full, bench_paper(labels, scratch))


if __name__ == "__main__":
    stop_on_sigterm()
    main()
