"""Compares the trainer's loader with timm's WebDataset loader on the same shards, and with itself without labels.

    python -m benchmarks.speed.loader --shards 'photos-{0..1}.tar' --labels photos.zarr --scratch FOLDER

One worker each, one thread; 224 px crops of 0.08 to 1 of the area, mirrored at random, uint8. They take turns.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

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


def measure(batches: Iterator[Any], batch_size: int) -> tuple[float, float]:
    """Images a second after the first batches, and the worker's largest memory in MiB."""
    for _ in range(WARM_UP):
        next(batches)
    start, count = time.perf_counter(), 0
    memory = 0.0
    for _ in batches:
        count += 1
        memory = max(memory, worker_memory())
    return count * batch_size / (time.perf_counter() - start), memory


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
        order = make_order(joined, settings)

        def ours(joined: Sequence[JoinedShard]) -> Iterator[Any]:
            return load_batches(SampleStream(joined, rows, order, settings, start_step=0), torch.device("cpu"))

        loaders: dict[str, Callable[[], Iterator[Any]]] = {
            "ours, with labels": lambda: ours(joined),
            "ours, without": lambda: ours(without_labels(joined)),
            "timm's": lambda: timm_batches(scratch / "shards", count, order.usable, batch_size),
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        memory: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(runs):
            for name, make in loaders.items():
                rate, held = measure(make(), batch_size)
                rates[name].append(rate)
                memory[name].append(held)
    finally:
        shutil.rmtree(scratch)
    print(f"{order.usable:,} images in {count} shards, batches of {batch_size}, torch {torch.__version__}, "
          f"timm {timm.__version__}\n")  # fmt: skip
    ours_, without, theirs = rates.values()
    table("one worker", {f"{name}: images/s": values for name, values in rates.items()} | {
        "ours / timm's": ratios(ours_, theirs),
        "with labels / without": ratios(ours_, without),
    } | {f"{name}: MiB a worker": values for name, values in memory.items()} | {
        "ours / timm's: MiB a worker": ratios(memory["ours, with labels"], memory["timm's"]),
    })  # fmt: skip


if __name__ == "__main__":
    main()
