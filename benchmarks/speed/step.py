"""Compares the whole training step, data included, with a loop of timm's parts, set up as in its training script.

    python -m benchmarks.speed.step --shards 'photos-{0..1}.tar' --labels photos.zarr --scratch FOLDER

All have the same student, crops, optimiser, batch size, threads and workers. Ours reads label maps and pools targets;
timm's loop uses the shards' single labels, and so does ours without labels, which never reads a map. They take turns of
some steps. `--device cuda` runs all of them on a GPU, in bfloat16; give it as many workers as keep the GPU busy.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from benchmarks.measure import ratios, table, take_turns
from benchmarks.speed.loader import timm_batches, without_labels
from benchmarks.stores import copy_labels, copy_shards
from store.cli.base import Command
from store.cli.options import LocalPath, shards_option
from store.reader import LabelStore
from store.shards.patterns import expand_shards
from trainer.data.batches import SampleStream, load_batches, make_order
from trainer.data.checks import check_join
from trainer.data.join import join_shards
from trainer.settings import TrainSettings
from trainer.student.device import autocast, resolve_device
from trainer.student.student import Student
from trainer.types import Device

OURS, WITHOUT, TIMM = "ours, with labels", "ours, without", "timm's"
SMOOTHING = 0.1


def our_steps(settings: TrainSettings, shards: list[Path], store: LabelStore, *, with_labels: bool) -> Iterator[float]:
    """Losses of the trainer's own updates."""
    joined = join_shards(shards, store)
    rows = check_join(joined, settings, num_classes=store.schema.num_classes)
    order = make_order(joined, settings)
    student = Student(settings, num_classes=store.schema.num_classes, steps_per_epoch=order.steps)
    student.model.train()
    joined = joined if with_labels else without_labels(joined)
    with closing(load_batches(SampleStream(joined, rows, order, settings, start_step=0), student.device)) as batches:
        for updates, batch in enumerate(batches):
            yield float(student.update(batch, updates))


def timm_steps(settings: TrainSettings, folder: Path, count: int, images: int, classes: int) -> Iterator[float]:
    """Losses of a loop of timm's loader, model, optimiser and schedule."""
    model = timm.create_model(settings.model, num_classes=classes).to(settings.device)
    model.train()
    optimiser = create_optimizer_v2(
        model, opt="sgd", lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )  # fmt: skip
    scheduler, _ = create_scheduler_v2(
        optimiser, num_epochs=settings.epochs, step_on_epochs=False, updates_per_epoch=64
    )
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    updates = 0
    while True:
        batches = timm_batches(
            folder, count, images, settings.batch_size, workers=settings.workers, device=settings.device
        )
        for images_B3SS, labels_B in batches:
            with autocast(settings):
                logits_BC = model(images_B3SS)
            loss = criterion(logits_BC.float(), labels_B)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            updates += 1
            scheduler.step_update(updates)
            yield float(loss.detach())


def rate(steps: Iterator[Any], count: int, batch_size: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * batch_size / (time.perf_counter() - start)


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@click.option("--labels", required=True, help="The store of their labels.")
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--copies", "count", default=32, show_default=True, help="Shards to read: copies of the given ones.")
@click.option("--model", default="resnet18", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Steps of one turn.")
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1))
def main(
    patterns: tuple[str, ...],
    labels: str,
    scratch: Path,
    count: int,
    model: str,
    device: Device,
    workers: int,
    batch_size: int,
    steps: int,
    runs: int,
) -> None:
    """Time steps of all three in turns."""
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns for each loader that there is no info file
    torch.set_num_threads(1)
    given = expand_shards(patterns)
    scratch.mkdir()
    try:
        shards = copy_shards(given, scratch / "shards", count)
        store = copy_labels(given, LabelStore.open(labels), scratch / "labels.zarr", count)
        settings = resolve_device(
            TrainSettings(model=model, epochs=99, batch_size=batch_size, workers=workers, lr=0.01, device=device)
        )
        bare = replace(settings, target="original", label_smoothing=SMOOTHING)
        images, classes = sum(len(group) for group in store), store.schema.num_classes
        loops = {
            OURS: our_steps(settings, shards, store, with_labels=True),
            WITHOUT: our_steps(bare, shards, store, with_labels=False),
            TIMM: timm_steps(settings, scratch / "shards", count, images, classes),
        }
        rates = take_turns({name: partial(rate, loop, steps, batch_size) for name, loop in loops.items()}, runs)
    finally:
        shutil.rmtree(scratch)
    where = torch.cuda.get_device_name() if device == "cuda" else "one CPU thread"
    print(f"{model}, {batch_size} crops of 224 px, {where}, {settings.precision}, workers: {workers}, {steps} steps a "
          f"turn, torch {torch.__version__}, timm {timm.__version__}\n")  # fmt: skip
    table("whole step", {f"{name}: images/s": values for name, values in rates.items()} | {
        "ours / timm's": ratios(rates[OURS], rates[TIMM]),
        "with labels / without": ratios(rates[OURS], rates[WITHOUT]),
    })  # fmt: skip


if __name__ == "__main__":
    main()
