"""Measures training's use of a large store: opening it, the table of rows, the order, one epoch of label reads.

One rank's preparations are measured in a process of their own. Then a process for every worker of every rank, started
as the trainer's workers are, reads that worker's part of each batch's maps and returns their row numbers.

Letters: V streams, n rows of one worker, B rows of a batch.
"""

import pickle
import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import set_forkserver_preload
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.map_reads import MapReader, open_groups, read_table
from benchmarks.resample import Plan, middle_class
from benchmarks.scale.store import expect, progress
from benchmarks.stages import Figures, Stage, in_process, measured, private_mib, processes
from store.cli.progress import track
from store.format.arrays import BIG_ARRAYS, CHUNK_ROWS
from store.system.processes import keep_freed_memory
from trainer.data.batches import check_topology, order_of
from trainer.data.join import JoinedShard
from trainer.data.table import RowTable
from trainer.order.sample_order import SampleOrder

RANKS, WORKERS = 8, 8
MIB = 1 << 20
AT_A_TIME = 2  # workers; as many as the machine of the published figures has cores


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """What one rank holds in memory when it is ready to train."""

    joined: tuple[JoinedShard, ...]
    table: RowTable
    order: SampleOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One worker's reads of an epoch."""

    rows: NDArray[np.int64]  # (steps, n / steps), in the order of reading
    order_seconds: float
    read_seconds: float
    chunks: int  # decoded
    groups: int  # opened
    read_bytes: int  # from disk or the page cache
    own_mib: float  # private pages of the process at the end


def prepare(path: Path, batch_size: int) -> Rank:
    """Open a store as a rank does, without comparing it with image shards, which do not exist.

    Raises:
        SettingsError: the batch cannot be divided among so many ranks and workers.
    """
    joined = open_groups(path)
    order = order_of(joined, batch_size=batch_size, seed=0)
    check_topology(order, world=RANKS, workers=WORKERS)
    return Rank(joined=joined, table=read_table(joined), order=order)


def table_bytes(table: RowTable) -> int:
    tensors = (table.keys, table.key_starts, table.offsets, table.digests, table.labels)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_rank(path: Path, batch_size: int) -> Figures:
    """Seconds and memory of a rank's preparations, one after the other."""
    torch.set_num_threads(1)
    opened = measured(partial(open_groups, path))
    read = measured(partial(read_table, opened.value))
    order = order_of(opened.value, batch_size=batch_size, seed=0)
    made = measured(lambda: next(order.batches(0)))
    held = table_bytes(read.value)
    return {
        "rank: open and join all groups: s": opened.seconds,
        "rank: read the table of rows: s": read.seconds,
        "rank: table of rows: MiB": held / MIB,
        "rank: table of rows, bytes a row": held / order.usable,
        "rank: order of an epoch, to the first batch: s": made.seconds,
        "rank: groups as pickled for each worker: MiB": len(pickle.dumps(opened.value)) / MIB,
        "rank: peak with groups: MiB": opened.peak_mib,
        "rank: peak with table: MiB": read.peak_mib,
        "rank: peak with order: MiB": made.peak_mib,
        "a process that has imported the trainer: MiB": opened.floor_mib,
    }


def read_part(held: Rank, rank: int, worker: int) -> Part:
    """Read one worker's maps of an epoch, as `SampleStream` does, and compare each with its row's label.

    Raises:
        WrongResultError: a map belongs to another row.
    """
    torch.set_num_threads(1)
    keep_freed_memory()  # as the trainer's workers do
    mine = held.order.owned(rank=rank, world=RANKS, worker=worker, workers=WORKERS)
    reader = MapReader(
        held.joined, held.table, cached_rows=len(mine) * held.order.cached_rows
    )  # fmt: skip
    before, start = bytes_read(), time.perf_counter()
    rows = list(held.order.batches(0, mine))
    ordered = time.perf_counter()
    labels, wrong = held.table.labels.numpy(), 0
    for part in rows:
        maps = zip(part, reader.maps(part), strict=True)
        wrong += sum(middle_class(classes) != labels[row] for row, (classes, _) in maps)
    ended = time.perf_counter()
    expect(f"rank {rank}, worker {worker}: maps of other rows", int(wrong), 0)
    return Part(
        rows=np.stack(rows),
        order_seconds=ordered - start,
        read_seconds=ended - ordered,
        chunks=reader.chunks,
        groups=reader.groups,
        read_bytes=bytes_read() - before,
        own_mib=private_mib(),
    )


def bytes_read() -> int:
    """Bytes that this process has read since its start."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def read_epoch(held: Rank) -> list[Stage[Part]]:
    """Run all workers of all ranks, two at a time, each in a process of its own.

    Raises:
        WrongResultError: a row was read twice or never, or a batch has other rows.
    """
    set_forkserver_preload(["trainer.data.batches", "benchmarks.scale.epoch"])
    with processes(AT_A_TIME, "forkserver") as pool:
        pairs = [(rank, worker) for rank in range(RANKS) for worker in range(WORKERS)]
        waiting = [pool.submit(measured, partial(read_part, held, *pair)) for pair in pairs]
        done = as_completed(waiting)
        for _ in track(waiting, "workers"):
            next(done).result()
    parts = [future.result() for future in waiting]
    check_epoch(held.order, [part.value.rows for part in parts])
    return parts


def check_epoch(order: SampleOrder, parts: Sequence[NDArray[np.int64]]) -> None:
    """Raise WrongResultError unless the workers' parts together are the epoch's batches, each row once."""
    together = np.concatenate(parts, axis=1)
    expect("batches and rows of each", together.shape, (order.steps, order.batch_size))
    expect("different rows", len(np.unique(together)), order.steps * order.batch_size)
    for step, (found, rows_n) in enumerate(zip(together, order.batches(0), strict=True)):
        expect(f"rows of batch {step}", sorted(found), sorted(rows_n))


def bench_training(path: Path, plan: Plan, batch_size: int) -> Figures:
    """Measure one rank's preparations, then an epoch of label reads by all workers of all ranks."""
    progress(plan, "a rank")
    figures = in_process(partial(measure_rank, path, batch_size)).value
    progress(plan, "one epoch")
    held = prepare(path, batch_size)
    return figures | _epoch(held, read_epoch(held))


def _epoch(held: Rank, stages: Sequence[Stage[Part]]) -> Figures:
    parts = [stage.value for stage in stages]
    rates = [part.rows.size / part.read_seconds for part in parts]
    read, decoded = sum(part.rows.size for part in parts), sum(part.chunks for part in parts)
    chunks = sum(-(-len(shard.group) // CHUNK_ROWS) for shard in held.joined)
    read_bytes = sum(part.read_bytes for part in parts)
    return {
        "epoch: batches, all complete": held.order.steps,
        "epoch: rows, each once": read,
        "epoch: reading, sum over the workers: s": sum(part.read_seconds for part in parts),
        "epoch: rows/s, median worker": median(rates),
        "epoch: rows/s, slowest": min(rates),
        "epoch: rows/s, fastest": max(rates),
        "epoch: order, each worker: s": median(part.order_seconds for part in parts),
        "epoch: chunks decoded": decoded,
        "epoch: times that a chunk is decoded": decoded / chunks,
        "epoch: groups opened by a worker": median(part.groups for part in parts),
        "epoch: bytes read": read_bytes,
        "epoch: bytes read, a row": read_bytes / read,
        "epoch: bytes read / bytes of the maps": read_bytes / _map_bytes(held.joined),
        "epoch: worker's peak: MiB": max(stage.peak_mib for stage in stages),
        "epoch: worker before it began: MiB": median(stage.floor_mib for stage in stages),
        "epoch: worker's own pages at its end: MiB": max(part.own_mib for part in parts),
    }


def _map_bytes(joined: Sequence[JoinedShard]) -> int:
    """Bytes of the classes and scores of all groups, as stored."""
    return sum(
        record.size
        for shard in joined
        for path, record in shard.group.commit.objects.items()
        if path.partition("/")[0] in BIG_ARRAYS[:2]
    )
