"""Compares the annotator end to end with its bare teacher, and with a script that writes one file for each image.

    python -m benchmarks.speed.annotator --shards 'photos/*.tar' --scratch FOLDER --teacher NAME ... --threads 1

The three take turns, and each run gives a ratio of its own. On a GPU, with random weights if there are no others:

    python -m benchmarks.speed.annotator --shards 'photos/*.tar' --scratch FOLDER --random-weights \
        --teacher tf_efficientnet_l2 --input-size 475 --precision bfloat16 --compile --batch-size 64 --workers 14
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import forkserver, set_forkserver_preload
from pathlib import Path

import click
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from annotator.report import Reporter, Summary
from annotator.run.annotate import ReadyTeacher, annotate, load_in_own_process, open_labels
from annotator.settings import Job, RunSettings, TeacherSettings
from annotator.teacher.teacher import Teacher
from annotator.teacher.topk import keep_top_k
from benchmarks.measure import median, ratios, table, take_turns
from benchmarks.stores import copy_shards
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import LocalPath, shards_option
from store.shards.decode import decode_image
from store.shards.index import index_shard
from store.shards.patterns import expand_shards
from store.shards.remote import Shard

TOP_K = 5
BARE, OURS, OTHER = "bare teacher on random data", "annotator, end to end", "one `.pt` file for each image"
IMAGENET = 1_281_167
MIB = 1 << 20


def resident_bytes() -> int:
    """Resident set size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Memory(Reporter):
    """A reporter that records the memory at each commit of a shard's labels."""

    def __init__(self) -> None:
        self.after: list[int] = []

    def committed(self, shard: Shard, rows: int) -> None:
        """Record it."""
        self.after.append(resident_bytes())


def synchronise(teacher: Teacher) -> None:
    if teacher.device.type == "cuda":
        torch.cuda.synchronize()


def run_bare(teacher: Teacher, batch_size: int, images: int) -> float:
    """Images a second of features, head and top-k, on random data that are on the device already."""
    batch = torch.randn(batch_size, 3, *teacher.preprocessing.input_size, device=teacher.device)
    batch = batch.to(memory_format=torch.channels_last)
    batches = max(1, round(images / batch_size))
    synchronise(teacher)
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(batches):
            keep_top_k(teacher.head(teacher.features(batch)), TOP_K)
    synchronise(teacher)
    return batches * batch_size / (time.perf_counter() - start)


def run_annotator(ready: ReadyTeacher, shards: Sequence[Path], labels: Path, settings: RunSettings) -> float:
    """Images a second of a run into a new store, from its start to its last commit."""
    summary = Summary()
    start = time.perf_counter()
    writer = open_labels(shards, labels, ready.schema, summary, overwrite=False)
    annotate(shards, writer, ready, settings, summary)
    seconds = time.perf_counter() - start
    shutil.rmtree(labels)
    return summary.images / seconds


class ImageFiles(Dataset[tuple[Tensor, str]]):
    """A dataset of image files, as usually written."""

    def __init__(self, files: Sequence[Path], size: tuple[int, int], interpolation: str) -> None:
        self.files, self.size = files, size
        self.resample = Image.Resampling[interpolation.upper()]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, str]:
        pixels = Image.fromarray(decode_image(self.files[i].read_bytes())).resize(self.size[::-1], self.resample)
        return torch.from_numpy(np.asarray(pixels).transpose(2, 0, 1).copy()), self.files[i].stem


def run_one_file_each(teacher: Teacher, files: Sequence[Path], out: Path, settings: RunSettings) -> float:
    """Images a second of a simple script: the same decoding, batches and teacher, and one `.pt` file for each map."""
    out.mkdir()
    dataset = ImageFiles(files, teacher.preprocessing.input_size, teacher.preprocessing.interpolation)
    start = time.perf_counter()
    with torch.inference_mode():
        for pixels, names in DataLoader(
            dataset, settings.batch_size, num_workers=settings.workers, multiprocessing_context="forkserver"
        ):
            classes, scores, _ = keep_top_k(teacher.head(teacher.features(teacher.normalise(pixels))), TOP_K)
            for name, *pair in zip(names, scores.cpu(), classes.cpu(), strict=True):
                torch.save(torch.stack([part.float() for part in pair]), out / f"{name}.pt")
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return len(files) / seconds


def extract(shards: Sequence[Path], folder: Path) -> list[Path]:
    """Write the images of shards as files."""
    folder.mkdir()
    files = []
    for shard in shards:
        data = shard.read_bytes()
        for sample in index_shard(shard).samples:
            files.append(folder / f"{shard.stem}-{Path(sample.key).name}.jpg")
            files[-1].write_bytes(data[sample.offset : sample.offset + sample.length])
    return files


def with_random_weights(settings: TeacherSettings, scratch: Path) -> TeacherSettings:
    """The settings, with a checkpoint of random weights."""
    sizes = {} if settings.num_classes is None else {"num_classes": settings.num_classes}
    torch.manual_seed(0)
    network = timm.create_model(settings.name, **sizes, **settings.args)
    file = scratch / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    return replace(settings, checkpoint=file)


def bench_speed(ready: ReadyTeacher, shards: Sequence[Path], scratch: Path, settings: RunSettings, runs: int) -> None:
    files = extract(shards, scratch / "files")
    rates = take_turns(
        {
            BARE: lambda: run_bare(ready.teacher, settings.batch_size, len(files) // 4),
            OURS: lambda: run_annotator(ready, shards, scratch / "labels.zarr", settings),
            OTHER: lambda: run_one_file_each(ready.teacher, files, scratch / "maps", settings),
        },
        runs,
    )
    table(f"{len(files):,} images a run", {f"{name}: images/s": values for name, values in rates.items()} | {
        "annotator / bare": ratios(rates[OURS], rates[BARE]),
        "one file each / bare": ratios(rates[OTHER], rates[BARE]),
    })  # fmt: skip
    hours = IMAGENET / median(rates[OURS]) / 3600
    print(f"\n{IMAGENET:,} images would take {hours:,.1f} h with this teacher on this machine")


def bench_memory(ready: ReadyTeacher, shards: Sequence[Path], labels: Path, settings: RunSettings) -> None:
    memory = Memory()
    summary = Summary(memory)
    writer = open_labels(shards, labels, ready.schema, summary, overwrite=False)
    annotate(shards, writer, ready, settings, summary)
    shutil.rmtree(labels)
    second, last = memory.after[1], memory.after[-1]
    print()
    table(f"memory, {len(shards)} shards", {
        "held after the second: MiB": [second / MIB],
        "held after the last: MiB": [last / MIB],
        "last / second": [last / second],
    })  # fmt: skip


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@teacher_options
@click.option("--random-weights", is_flag=True, help="Measure speed without a checkpoint.")
@click.option("--threads", type=int, help="torch's threads in the teacher.")
@click.option("--batch-size", default=16, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--copies",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Copies of the given shards to read.",
)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
def main(
    patterns: tuple[str, ...],
    scratch: Path,
    teacher: TeacherSettings,
    random_weights: bool,
    threads: int | None,
    batch_size: int,
    workers: int,
    copies: int,
    runs: int,
) -> None:
    """Time the annotator on image shards."""
    if threads:
        torch.set_num_threads(threads)
    shards = expand_shards(patterns)
    # Workers import this file as well; preloading what it imports keeps that out of each run's time.
    set_forkserver_preload(["annotator.run.annotate", "pipelines.options"])
    forkserver.ensure_running()
    scratch.mkdir()
    try:
        settings = with_random_weights(teacher, scratch) if random_weights else teacher
        run = RunSettings(top_k=TOP_K, batch_size=batch_size, workers=workers)
        ready = load_in_own_process(Job(labels=scratch, teacher=settings, settings=run, class_names=None))
        height, width = ready.teacher.preprocessing.input_size
        done_by = ready.teacher.provenance()
        print(f"{teacher.name}, {height} x {width} pixels, {done_by['precision']} on {done_by['device']}, "
              f"torch threads: {torch.get_num_threads()}, batch {batch_size}, workers: {workers}\n")  # fmt: skip
        copied = copy_shards(shards, scratch / "copies", copies)
        bench_speed(ready, copied, scratch, run, runs)
        bench_memory(ready, copied, scratch / "memory.zarr", run)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
