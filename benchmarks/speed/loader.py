"""Compares the trainer's loader with timm's WebDataset loader on the same shards, and with itself without labels.

    python -m benchmarks.speed.loader --shards 'photos-{0..1}.tar' --labels photos.zarr --scratch FOLDER

One worker each, one thread; 224 px crops of 0.08 to 1 of the area, mirrored at random, uint8. They take turns. On a
machine with other work, the worker's processor time says more than the clock.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NamedTuple

import click
import timm
import torch
from timm.data import create_dataset, create_loader

from benchmarks.measure import ratios, table
from benchmarks.stores import BlankGroup, copy_labels, copy_shards
from store.cli.base import Command
from store.cli.options import LocalPath, shards_option
from store.reader import LabelStore
from store.shards.patterns import expand_shards
from trainer.data.batches import SampleStream, load_batches, make_order
from trainer.data.checks import check_join
from trainer.data.join import JoinedShard, join_shards
from trainer.settings import TrainSettings

WARM_UP = 8  # batches that are not counted, among them those read ahead
CROPS = (1, 2, 4)  # of each image


def without_labels(joined: Sequence[JoinedShard]) -> tuple[JoinedShard, ...]:
    """The same shards with blank label maps, so that the loader reads images only."""
    return tuple(replace(shard, group=BlankGroup.of(shard.group)) for shard in joined)


def timm_batches(
    folder: Path, count: int, images: int, batch_size: int, *, workers: int = 1, device: str = "cpu"
) -> Iterator[Any]:
    """Timm's reader, transforms and collation, as in its training script, without its other augmentations."""
    dataset = create_dataset(
        "wds/", root=str(folder), split=f"copy-{{000..{count - 1:03}}}.tar|{images}", is_training=True,
        batch_size=batch_size,
    )  # fmt: skip
    loader = create_loader(
        dataset, input_size=(3, 224, 224), batch_size=batch_size, is_training=True, hflip=0.5, color_jitter=None,
        interpolation="bilinear", num_workers=workers, device=torch.device(device), persistent_workers=False,
    )  # fmt: skip
    yield from loader


class Rate(NamedTuple):
    """One worker's figures."""

    clock: float  # crops a second
    processor: float  # crops a second of the worker's processor time
    memory: float  # its largest, in MiB


def measure(batches: Iterator[Any], batch_size: int) -> Rate:
    """Crops a second after the first batches, and memory."""
    for _ in range(WARM_UP):
        next(batches)
    start, first, last, count = time.perf_counter(), worker_seconds(), 0.0, 0
    memory = 0.0
    for _ in batches:
        count += 1
        last, memory = max(last, worker_seconds()), max(memory, worker_memory())
    crops = count * batch_size
    return Rate(clock=crops / (time.perf_counter() - start), processor=crops / (last - first), memory=memory)


def worker_seconds() -> float:
    """Processor time of this process's children."""
    ticks = 0
    for child in active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        ticks += int(fields[11]) + int(fields[12])  # in user and in system mode
    return ticks / os.sysconf("SC_CLK_TCK")


def worker_memory() -> float:
    """Proportional set size of this process's children in MiB: shared pages are counted in part."""
    total = 0
    for child in active_children():
        try:
            lines = Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # the process has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@click.option("--labels", required=True, help="The store of their labels.")
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--copies", "count", default=32, show_default=True, help="Shards to read: copies of the given ones.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
def main(patterns: tuple[str, ...], labels: str, scratch: Path, count: int, batch_size: int, runs: int) -> None:
    """Time one worker of each loader."""
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns for each loader that there is no info file
    torch.set_num_threads(1)
    given = expand_shards(patterns)
    scratch.mkdir()
    try:
        shards = copy_shards(given, scratch / "shards", count)
        store = copy_labels(given, LabelStore.open(labels), scratch / "labels.zarr", count)
        settings = TrainSettings(model="resnet18", epochs=1, warmup_epochs=0, batch_size=batch_size, workers=1)
        joined = join_shards(shards, store)
        rows = check_join(joined, settings, num_classes=store.schema.num_classes)
        usable = make_order(joined, settings).usable

        def ours(joined: Sequence[JoinedShard], crops: int = 1) -> Iterator[Any]:
            several = replace(settings, crops_per_image=crops)
            stream = SampleStream(joined, rows, make_order(joined, several), several, start_step=0)
            return load_batches(stream, torch.device("cpu"))

        loaders: dict[str, Callable[[], Iterator[Any]]] = {
            "ours, without labels": lambda: ours(without_labels(joined)),
            "timm's": lambda: timm_batches(scratch / "shards", count, usable, batch_size),
            **{f"ours, {crops} of each image": partial(ours, joined, crops) for crops in CROPS},
        }
        found: dict[str, list[Rate]] = {name: [] for name in loaders}
        for _ in range(runs):
            for name, make in loaders.items():
                found[name].append(measure(make(), batch_size))
    finally:
        shutil.rmtree(scratch)
    print(f"{usable:,} images in {count} shards, batches of {batch_size}, torch {torch.__version__}, "
          f"timm {timm.__version__}\n")  # fmt: skip
    table("one worker", dict(figures(found)))


def figures(found: Mapping[str, Sequence[Rate]]) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield name and values of each row of the table."""
    columns = {name: Rate(*zip(*rates, strict=True)) for name, rates in found.items()}  # type: ignore[arg-type]
    theirs, without = columns["timm's"], columns["ours, without labels"]
    for column, unit in (("clock", "images/s"), ("processor", "images/s of processor time")):
        for name, values in columns.items():
            yield f"{name}: {unit}", getattr(values, column)
        for crops in CROPS:
            ours = getattr(columns[f"ours, {crops} of each image"], column)
            yield f"ours, {crops} of each image / timm's: {unit}", ratios(ours, getattr(theirs, column))
        ours = getattr(columns["ours, 1 of each image"], column)
        yield f"with labels / without: {unit}", ratios(ours, getattr(without, column))
    for name, values in columns.items():
        yield f"{name}: MiB a worker", values.memory  # type: ignore[misc]
    yield "ours / timm's: MiB a worker", ratios(columns["ours, 1 of each image"].memory, theirs.memory)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
