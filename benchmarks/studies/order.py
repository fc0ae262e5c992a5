"""Measures how well the order of training samples is shuffled, against a full permutation, at ImageNet's size.

    python -m benchmarks.studies.order

Distances are differences of row numbers, which count through all shards.
"""

from collections.abc import Iterator

import click
import numpy as np
from numpy.typing import NDArray

from store.cli.base import Command
from trainer.order.blocks import BLOCK_ROWS
from trainer.order.sample_order import SampleOrder

IMAGENET_ROWS, IMAGENET_SHARDS = 1_281_167, 1_024
PERCENTILES = (1, 10, 50, 90)


def shard_rows(rows: int, shards: int) -> tuple[int, ...]:
    """Rows of shards of almost the same size."""
    return tuple(len(part) for part in np.array_split(np.arange(rows), shards))


def blocks(rows: NDArray[np.int64], sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the 64-row block of each row."""
    ends = np.cumsum(sizes, dtype=np.int64)
    shard = np.searchsorted(ends, rows, side="right")
    found: NDArray[np.int64] = shard * (-(-max(sizes) // BLOCK_ROWS)) + (rows - (ends - sizes)[shard]) // BLOCK_ROWS
    return found


def same_block(found: NDArray[np.int64]) -> float:
    """Fraction of the rows whose block has another row in the same batch; batches are the rows of the array."""
    ordered = np.sort(found, axis=1)
    equal = ordered[:, 1:] == ordered[:, :-1]
    none = np.zeros((len(ordered), 1), bool)
    return float((np.hstack([equal, none]) | np.hstack([none, equal])).mean())


def statistics(batches: NDArray[np.int64], sizes: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each statistic of an epoch of (steps, B) row numbers."""
    epoch = batches.reshape(-1)
    steps = np.abs(np.diff(epoch))
    for percent, distance in zip(PERCENTILES, np.percentile(steps, PERCENTILES), strict=True):
        yield f"distance of neighbours in the epoch, {percent} %", f"{distance:,.0f}"
    inside = np.diff(np.sort(batches, axis=1), axis=1)
    for percent, distance in zip(PERCENTILES, np.percentile(inside, PERCENTILES), strict=True):
        yield f"distance to the nearest row above in the same batch, {percent} %", f"{distance:,.0f}"
    found = blocks(batches, sizes)
    neighbours = found.reshape(-1)
    yield "neighbours in the epoch from the same block of 64", f"{np.mean(neighbours[1:] == neighbours[:-1]):.3%}"
    yield "rows of a batch with another of their block in it", f"{same_block(found):.2%}"
    yield "different blocks in a batch", f"{np.mean([len(np.unique(batch)) for batch in found]):,.0f}"
    correlation = np.corrcoef(np.arange(len(epoch)), epoch)[0, 1]
    yield "correlation of the position in the epoch with that in the files", f"{correlation:+.4f}"


@click.command(cls=Command)
@click.option("--rows", default=IMAGENET_ROWS, show_default=True)
@click.option("--shards", default=IMAGENET_SHARDS, show_default=True)
@click.option("--batch-size", default=1024, show_default=True)
@click.option("--epochs", default=20, show_default=True, help="Epochs over which the rows left out are counted.")
def main(rows: int, shards: int, batch_size: int, epochs: int) -> None:
    """Print the statistics of one epoch as a table."""
    sizes = shard_rows(rows, shards)
    order = SampleOrder(group_rows=sizes, undecodable=(), batch_size=batch_size, seed=0)

    def batches_of(epoch: int) -> NDArray[np.int64]:
        return np.stack(list(order.batches(epoch)))

    ours = batches_of(0)
    random = np.random.default_rng(0).permutation(rows)[: ours.size].reshape(ours.shape)
    print(f"{rows:,} rows in {shards:,} shards, batches of {batch_size:,}: {order.steps:,} an epoch\n")
    print("| one epoch | this order | full permutation |\n|---|---|---|")
    for (name, our), (_, full) in zip(statistics(ours, sizes), statistics(random, sizes), strict=True):
        print(f"| {name} | {our} | {full} |")
    left: set[int] = set()
    repeated = 0
    for epoch in range(epochs):
        seen = np.zeros(rows, bool)
        epoch_rows = batches_of(epoch).reshape(-1)
        seen[epoch_rows] = True
        repeated += len(epoch_rows) - int(seen.sum())
        left |= set(np.flatnonzero(~seen).tolist())
    print(f"\n{epochs} epochs: {repeated} rows twice in an epoch, {rows % batch_size} left out of each, "
          f"{len(left)} different ones in all")  # fmt: skip


if __name__ == "__main__":
    main()
