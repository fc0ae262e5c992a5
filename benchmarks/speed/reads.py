"""Compares chunked reads of label maps in the order of training with one `.pt` file for each image.

    python -m benchmarks.speed.reads --labels photos.zarr --scratch FOLDER

One thread; all files are in the page cache. `.pt` files are read in random order; numpy memmaps of the bare arrays are
the floor. All return each row's classes and scores as arrays of their own.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.map_reads import MapReader, Maps, open_groups, read_table
from benchmarks.measure import ratios, table, take_turns
from benchmarks.resample import GROUP_ROWS, Plan, write_resampled
from store.cli.base import Command
from store.cli.options import LocalPath
from store.reader import LabelStore
from trainer.data.batches import order_of


def write_files(store: LabelStore, folder: Path) -> list[Path]:
    """Write the same maps as one `.pt` file for each image, and as two bare arrays."""
    folder.mkdir()
    files: list[Path] = []
    groups = [group.read() for group in store]
    classes = np.concatenate([maps.classes for maps in groups])
    scores = np.concatenate([maps.scores for maps in groups])
    for row in range(len(classes)):
        files.append(folder / f"{row:06}.pt")
        pair = torch.from_numpy(classes[row].astype(np.int16)), torch.from_numpy(scores[row])
        torch.save(pair, files[-1])
    np.save(folder / "classes.npy", classes)
    np.save(folder / "scores.npy", scores)
    return files


def rate(read: Callable[[], Iterator[Maps]]) -> float:
    """Maps a second."""
    start = time.perf_counter()
    count = sum(1 for _ in read())
    return count / (time.perf_counter() - start)


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps, to draw from.")
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@click.option("--groups", default=8, show_default=True)
@click.option("--batch-size", default=1024, show_default=True)
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1))
def main(labels: str, scratch: Path, groups: int, batch_size: int, runs: int) -> None:
    """Time an epoch of label maps read in each way."""
    torch.set_num_threads(1)
    scratch.mkdir()
    try:
        path = scratch / "labels.zarr"
        write_resampled(labels, path, Plan(rows=groups * GROUP_ROWS, groups=groups))
        store, joined = LabelStore.open(path), open_groups(path)
        rows = read_table(joined)
        order = order_of(joined, batch_size=batch_size, seed=0)
        files = write_files(store, scratch / "files")
        shuffled = np.random.default_rng(0).permutation(len(files))

        def chunked() -> Iterator[Maps]:
            reader = MapReader(joined, rows, cached_rows=order.num_streams * order.cached_rows)
            for rows_n in order.batches(0):
                yield from reader.maps(rows_n)

        def one_file_each() -> Iterator[Maps]:
            for row in shuffled:
                ids, values = torch.load(files[row], weights_only=True)
                yield ids.numpy(), values.numpy()

        def mapped() -> Iterator[Maps]:
            classes = np.load(scratch / "files" / "classes.npy", mmap_mode="r")
            scores = np.load(scratch / "files" / "scores.npy", mmap_mode="r")
            for row in shuffled:
                yield np.array(classes[row]), np.array(scores[row])

        ways = {"the store, in the training order": chunked, "one `.pt` each": one_file_each, "memmap": mapped}
        # The first round is not counted; it fills the page cache.
        rates = take_turns({name: partial(rate, read) for name, read in ways.items()}, runs)
    finally:
        shutil.rmtree(scratch)
    ours, theirs, floor = rates.values()
    height, width = store.schema.map_size
    print(f"{len(files):,} maps of {height} x {width} cells, top {store.schema.top_k}, {groups} groups, batches "
          f"of {batch_size:,}, torch {torch.__version__}\n")  # fmt: skip
    table("one thread", {f"{name}: maps/s": values for name, values in rates.items()} | {
        "store / `.pt`": ratios(ours, theirs),
        "store / memmap": ratios(ours, floor),
    })  # fmt: skip


if __name__ == "__main__":
    main()
