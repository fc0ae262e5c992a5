"""The whole training step, data included, against a loop of timm's parts set up as its training script sets them up.

python -m benchmarks.bench_step --shards 'photos-{0..1}.tar' --labels photos.zarr --scratch FOLDER

The same student, crops, optimiser, batch size, threads and workers. Ours reads label maps and pools targets; timm's
takes the shards' single labels. They take turns, some steps each.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from benchmarks.bench_loader import timm_batches
from benchmarks.copies import copy_labels, copy_shards
from benchmarks.tables import table
from pipelines.options import shards_option
from store.patterns import expand_shards
from store.reader import LabelStore
from trainer.device import resolve_device
from trainer.join import check_join, join_shards
from trainer.settings import TrainSettings
from trainer.source import SampleStream, load_batches, make_order
from trainer.student import Student


def our_steps(settings: TrainSettings, shards: list[Path], store: LabelStore) -> Iterator[float]:
    """Losses of the trainer's own updates."""
    joined = join_shards(shards, store)
    rows = check_join(joined, settings, num_classes=store.schema.num_classes)
    order = make_order(joined, settings)
    student = Student(settings, num_classes=store.schema.num_classes, steps_per_epoch=order.steps)
    student.model.train()
    with closing(load_batches(SampleStream(joined, rows, order, settings, start_step=0), student.device)) as batches:
        for updates, batch in enumerate(batches):
            yield float(student.update(batch, updates))


def timm_steps(settings: TrainSettings, folder: Path, count: int, images: int, classes: int) -> Iterator[float]:
    """Losses of timm's loader, model, optimiser, schedule and the loop around them."""
    model = timm.create_model(settings.model, num_classes=classes)
    model.train()
    optimiser = create_optimizer_v2(
        model, opt="sgd", lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )  # fmt: skip
    scheduler, _ = create_scheduler_v2(
        optimiser, num_epochs=settings.epochs, step_on_epochs=False, updates_per_epoch=64
    )
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    updates = 0
    while True:
        for images_B3SS, labels_B in timm_batches(folder, count, images, settings.batch_size):
            loss = criterion(model(images_B3SS), labels_B)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            updates += 1
            scheduler.step_update(updates)
            yield float(loss.detach())


def seconds(steps: Iterator[Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return time.perf_counter() - start


@click.command()
@shards_option
@click.option("--labels", required=True, help="The store of their labels.")
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="A folder to make and remove.")
@click.option("--model", default="resnet18", show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--steps", default=4, show_default=True, help="In one turn.")
@click.option("--runs", default=7, show_default=True)
def main(
    patterns: tuple[str, ...], labels: str, scratch: Path, model: str, batch_size: int, steps: int, runs: int
) -> None:
    """Time steps of both in turns."""
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("timm").setLevel(logging.ERROR)  # that there is no info file, for every loader
    torch.set_num_threads(1)
    given, count = expand_shards(patterns), 64
    scratch.mkdir()
    try:
        shards = copy_shards(given, scratch / "shards", count)
        store = copy_labels(given, LabelStore.open(labels), scratch / "labels.zarr", count)
        settings = resolve_device(
            TrainSettings(model=model, epochs=99, batch_size=batch_size, workers=1, lr=0.01, device="cpu")
        )
        images, classes = sum(len(group) for group in store), store.schema.num_classes
        makers: dict[str, Callable[[], Iterator[float]]] = {
            "ours": lambda: our_steps(settings, shards, store),
            "timm's": lambda: timm_steps(settings, scratch / "shards", count, images, classes),
        }
        loops = {name: make() for name, make in makers.items()}
        taken: dict[str, list[float]] = {name: [] for name in loops}
        for i in range(runs + 1):  # the first round warms up and is not counted
            for name, loop in loops.items():
                found = seconds(loop, steps)
                if i:
                    taken[name].append(found)
    finally:
        shutil.rmtree(scratch)
    print(f"{model}, {batch_size} crops of 224 px, one thread, one worker, {steps} steps a turn, torch "
          f"{torch.__version__}, timm {timm.__version__}\n")  # fmt: skip
    rates = {name: [steps * batch_size / value for value in values] for name, values in taken.items()}
    table("whole step", {f"{name}: images/s": values for name, values in rates.items()} | {
        "ours / timm's": [a / b for a, b in zip(rates["ours"], rates["timm's"], strict=True)],
    })  # fmt: skip


if __name__ == "__main__":
    main()
