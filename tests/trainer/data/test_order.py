from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.format.arrays import CHUNK_ROWS
from trainer.data.order import BLOCK_ROWS, WINDOW_ROWS, SampleOrder


def make_order(**changes: Any) -> SampleOrder:
    values: dict[str, Any] = {"group_rows": (5000, 37, 900), "undecodable": (), "batch_size": 128, "seed": 0}
    return SampleOrder(**(values | changes))


@st.composite
def orders(draw: st.DrawFn) -> SampleOrder:
    groups = draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    undecodable = draw(st.sets(st.integers(0, sum(groups) - 1), max_size=sum(groups) - 1))
    batch = draw(st.integers(1, sum(groups) - len(undecodable)))
    return make_order(
        group_rows=tuple(groups), undecodable=tuple(sorted(undecodable)), batch_size=batch, seed=draw(st.integers(0, 9))
    )


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 300))
def test_every_usable_row_comes_at_most_once_and_n_mod_b_are_left_out(order: SampleOrder, epoch: int) -> None:
    rows = order.streams(epoch).reshape(-1)
    assert len(np.unique(rows)) == len(rows) == order.usable - order.usable % order.batch_size
    assert not np.isin(rows, order.undecodable).any()
    assert rows.min() >= 0
    assert rows.max() < sum(order.group_rows)


Topology = tuple[int, tuple[int, ...]]
"""Ranks, and how many workers each of them has."""


@st.composite
def topologies(draw: st.DrawFn, order: SampleOrder) -> Topology:
    world = draw(st.sampled_from([ranks for ranks in range(1, 65) if order.num_streams % ranks == 0]))
    workers = st.integers(1, order.num_streams // world)
    return world, tuple(draw(workers) for _ in range(world))


def global_batch(order: SampleOrder, topology: Topology, epoch: int, step: int) -> list[int]:
    """What all workers of all ranks read in one step, rank by rank."""
    world, workers_of = topology
    streams = order.streams(epoch)
    parts = [
        order.batch(streams[order.owned(rank=rank, world=world, worker=worker, workers=workers)], step).reshape(-1)
        for rank, workers in enumerate(workers_of)
        for worker in range(workers)
    ]
    return [row for part in parts for row in part.tolist()]


@settings(max_examples=60, deadline=None)
@given(orders(), st.data())
def test_every_topology_reads_the_same_global_batch(order: SampleOrder, data: st.DataObject) -> None:
    topology, epoch = data.draw(topologies(order)), data.draw(st.integers(0, 99))
    step = data.draw(st.integers(0, order.steps - 1))
    assert global_batch(order, topology, epoch, step) == order.batch(order.streams(epoch), step).reshape(-1).tolist()


@settings(max_examples=60, deadline=None)
@given(orders(), st.data())
def test_every_rank_reads_equally_many_streams_and_no_two_workers_read_the_same_one(
    order: SampleOrder, data: st.DataObject
) -> None:
    world, workers_of = data.draw(topologies(order))
    owned = [
        [order.owned(rank=rank, world=world, worker=worker, workers=workers) for worker in range(workers)]
        for rank, workers in enumerate(workers_of)
    ]
    assert all(len(streams) >= 1 for parts in owned for streams in parts)
    assert {sum(map(len, parts)) for parts in owned} == {order.num_streams // world}
    every = np.concatenate([streams for parts in owned for streams in parts])
    assert np.array_equal(every, np.arange(order.num_streams))


@settings(max_examples=30, deadline=None)
@given(orders(), st.data())
def test_resuming_at_any_step_on_another_topology_gives_exactly_the_remainder(
    order: SampleOrder, data: st.DataObject
) -> None:
    before, after = data.draw(topologies(order)), data.draw(topologies(order))
    stop = data.draw(st.integers(0, order.steps))
    read = [global_batch(order, before, 3, step) for step in range(stop)]
    read += [global_batch(order, after, 3, step) for step in range(stop, order.steps)]
    rows = [row for batch in read for row in batch]
    assert len(rows) == len(set(rows)) == order.steps * order.batch_size
    assert set(rows) == set(order.streams(3).reshape(-1).tolist())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_different_epochs_and_different_seeds_give_different_orders(one: int, other: int, seed: int, to: int) -> None:
    orders = {(epoch, base): make_order(seed=base).streams(epoch) for epoch in {one, other} for base in {seed, to}}
    assert len({streams.tobytes() for streams in orders.values()}) == len(orders)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    order = make_order()
    assert not np.array_equal(order.streams(0), order.streams(1))
    assert not np.array_equal(order.streams(0), make_order(seed=1).streams(0))
    assert np.array_equal(order.streams(5), make_order().streams(5))


def test_other_rows_are_left_out_in_other_epochs() -> None:
    order = make_order()
    left = [set(range(order.usable)) - set(order.streams(epoch).reshape(-1).tolist()) for epoch in range(20)]
    assert len(left[0]) == order.usable % order.batch_size > 0
    assert len(set.union(*left)) > 3 * len(left[0])


def test_streams_are_equal_and_as_many_as_divide_the_batch() -> None:
    assert make_order(batch_size=128).streams(0).shape == (64, 46 * 2)
    assert make_order(batch_size=96).num_streams == 32
    assert make_order(batch_size=25).num_streams == 1


def test_a_window_of_a_stream_touches_few_blocks() -> None:
    """Otherwise every sample would decode 64 label maps to use one."""
    order = make_order(group_rows=(64 * 4096,), batch_size=64)
    for stream in order.streams(0)[:8]:
        for start in range(0, len(stream), WINDOW_ROWS):
            assert len(np.unique(stream[start : start + WINDOW_ROWS] // BLOCK_ROWS)) <= WINDOW_ROWS // BLOCK_ROWS + 1


def test_rows_are_shuffled_within_windows_and_blocks_among_streams() -> None:
    order = make_order(group_rows=(64 * 4096,), batch_size=64)
    streams = order.streams(0)
    assert abs(np.corrcoef(streams[0, :WINDOW_ROWS], np.arange(WINDOW_ROWS))[0, 1]) < 0.2
    assert abs(np.corrcoef(streams[:, 0], np.arange(64))[0, 1]) < 0.5
    neighbours = np.abs(np.diff(streams[0, :WINDOW_ROWS])) == 1
    assert neighbours.mean() < 0.01


def test_blocks_are_the_stores_chunks() -> None:
    assert BLOCK_ROWS == CHUNK_ROWS


def test_fewer_rows_than_one_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="9 usable samples are fewer than one batch of 10; lower batch_size"):
        make_order(group_rows=(6, 4), undecodable=(2,), batch_size=10)


def test_imagenet_has_64_streams_of_20016_rows() -> None:
    order = make_order(group_rows=(1251,) * 1024, batch_size=1024)
    assert order.streams(0).shape == (64, 1251 * 16)
