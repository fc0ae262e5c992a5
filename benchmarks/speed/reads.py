"""The label side of training alone: chunked reads in the training order, against one `.pt` file for each image.

python -m benchmarks.speed.reads --labels photos.zarr --scratch FOLDER

One thread, everything in the page cache. `.pt` files are read in random order, as a trainer with an index would; numpy
memmaps of the bare arrays are the floor. All give every row's classes and scores as arrays of its own.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.tables import ratios, table
from benchmarks.turns import take_turns
from store.cli.base import Command
from store.format.arrays import CHUNK_ROWS
from store.format.schema import TarIdentity
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter
from trainer.data.batches import order_of
from trainer.data.join import JoinedShard, TableRow, make_table, read_group_rows
from trainer.data.samples import CACHED_ROWS_PER_STREAM, ChunkId, SampleReader

ROWS = 1280  # of a group; ImageNet-1k is usually cut into 1,024 shards of 1,251
Maps = tuple[NDArray[np.uint16], NDArray[np.float16]]  # (K, H, W) classes and scores of one image


class MapReader(SampleReader):
    """A sample reader that leaves the images alone."""

    def maps(self, rows: NDArray[np.int64]) -> Iterator[Maps]:
        """The maps of some rows."""
        found: list[TableRow] = self._table.look_up(rows)
        chunks = self._maps(found)
        for row in found:
            chunk = chunks[ChunkId(row.shard_number, row.member.row // CHUNK_ROWS)]
            i = row.member.row % CHUNK_ROWS
            yield chunk.classes[i].copy(), chunk.scores[i].copy()


def make_store(labels: LabelStore, path: Path, groups: int) -> LabelStore:
    """Groups as large as ImageNet's usual shards, of the given store's maps again and again."""
    writer = StoreWriter.open(path, labels.schema)
    given = [group.read() for group in labels]
    picks = np.resize(np.arange(sum(len(maps.classes) for maps in given)), ROWS)
    classes = np.concatenate([maps.classes for maps in given])[picks]
    scores = np.concatenate([maps.scores for maps in given])[picks]
    for i in range(groups):
        order = np.random.default_rng(i).permutation(ROWS)
        made = GroupLabels(
            classes=classes[order],
            scores=scores[order],
            tail_logsumexp=None,
            keys=tuple(f"{i:04}/{row:06}" for row in range(ROWS)),
            offsets=np.column_stack([np.arange(1, ROWS + 1) * 2048, np.full(ROWS, 1024)]).astype(np.uint64),
            digests=np.zeros(ROWS, np.uint64),
            labels=np.full(ROWS, -1, np.int32),
            undecodable=(),
        )
        tar = TarIdentity(size=(ROWS + 4) * 2048, mtime_ns=1, sha256="0" * 64)
        writer.write(f"copy-{i:03}", made, tar=tar, provenance={})
    return LabelStore.open(path)


def write_files(store: LabelStore, folder: Path) -> list[Path]:
    """The same maps as one `.pt` file an image, and as two bare arrays beside them."""
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
@click.option("--labels", required=True, help="A store, for realistic maps.")
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="A folder to make and remove.")
@click.option("--groups", default=8, show_default=True)
@click.option("--batch-size", default=1024, show_default=True)
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1))
def main(labels: str, scratch: Path, groups: int, batch_size: int, runs: int) -> None:
    """Time one epoch of label maps each."""
    torch.set_num_threads(1)
    scratch.mkdir()
    try:
        store = make_store(LabelStore.open(labels), scratch / "labels.zarr", groups)
        names = store.names()
        joined = tuple(
            JoinedShard(shard=Path(f"{name}.tar"), group=store.group(name), start=i * ROWS)
            for i, name in enumerate(names)
        )
        rows = make_table([read_group_rows(shard.group) for shard in joined])
        order = order_of(joined, batch_size=batch_size, seed=0)
        files = write_files(store, scratch / "files")
        shuffled = np.random.default_rng(0).permutation(len(files))

        def chunked() -> Iterator[Maps]:
            streams = order.streams(0)
            reader = MapReader(joined, rows, cached_rows=len(streams) * CACHED_ROWS_PER_STREAM, with_tail=False)
            for step in range(order.steps):
                yield from reader.maps(order.batch(streams, step).reshape(-1))

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
        # The first round, which is not counted, fills the page cache.
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
