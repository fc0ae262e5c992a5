import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.format.arrays import CHUNK_ROWS
from trainer.order.blocks import BLOCK_ROWS, Rows
from trainer.order.first_order import ORDERS, FirstOrder
from trainer.order.sample_order import MAX_STREAMS, SampleOrder

MIB = 1 << 20


def make_order(kind: type[SampleOrder] = SampleOrder, **changes: Any) -> SampleOrder:
    values: dict[str, Any] = {"group_rows": (5000, 37, 900), "undecodable": (), "batch_size": 128, "seed": 0}
    return kind(**(values | changes))


def epoch_rows(order: SampleOrder, epoch: int, streams: Rows | None = None) -> Rows:
    """(steps, n) rows of every batch of an epoch, or those of some streams."""
    return np.stack(list(order.batches(epoch, streams)))


def stream_rows(order: SampleOrder, epoch: int, stream: int) -> Rows:
    """(L,) rows of a stream in the order of reading."""
    return epoch_rows(order, epoch, np.array([stream])).reshape(-1)


@st.composite
def orders(draw: st.DrawFn) -> SampleOrder:
    groups = draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    undecodable = draw(st.sets(st.integers(0, sum(groups) - 1), max_size=sum(groups) - 1))
    usable = sum(groups) - len(undecodable)
    crops = draw(st.integers(1, min(usable, 4)))
    return make_order(
        draw(st.sampled_from(list(ORDERS.values()))),
        group_rows=tuple(groups),
        undecodable=tuple(sorted(undecodable)),
        batch_size=crops * draw(st.integers(1, usable // crops)),
        seed=draw(st.integers(0, 9)),
        crops_per_image=crops,
    )


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 100))
def test_every_usable_row_comes_at_most_once_and_n_mod_b_are_left_out(order: SampleOrder, number: int) -> None:
    """With several crops of each image, in as many epochs."""
    crops = order.crops_per_image
    rows = np.concatenate([epoch_rows(order, number * crops + part).reshape(-1) for part in range(crops)])
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
    parts = [
        next(order.batches(epoch, order.owned(rank=rank, world=world, worker=worker, workers=workers), start=step))
        for rank, workers in enumerate(workers_of)
        for worker in range(workers)
    ]
    return [row for part in parts for row in part.tolist()]


@settings(max_examples=60, deadline=None)
@given(orders(), st.data())
def test_every_topology_reads_the_same_global_batch(order: SampleOrder, data: st.DataObject) -> None:
    topology, epoch = data.draw(topologies(order)), data.draw(st.integers(0, 99))
    step = data.draw(st.integers(0, order.steps - 1))
    assert global_batch(order, topology, epoch, step) == epoch_rows(order, epoch)[step].tolist()


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
    assert len(rows) == len(set(rows)) == order.steps * order.batch_images
    assert set(rows) == set(epoch_rows(order, 3).reshape(-1).tolist())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_different_epochs_and_different_seeds_give_different_orders(one: int, other: int, seed: int, to: int) -> None:
    orders = {(epoch, base): epoch_rows(make_order(seed=base), epoch) for epoch in {one, other} for base in {seed, to}}
    assert len({rows.tobytes() for rows in orders.values()}) == len(orders)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    order = make_order()
    assert not np.array_equal(epoch_rows(order, 0), epoch_rows(order, 1))
    assert not np.array_equal(epoch_rows(order, 0), epoch_rows(make_order(seed=1), 0))
    assert np.array_equal(epoch_rows(order, 5), epoch_rows(make_order(), 5))


def test_other_rows_are_left_out_in_other_epochs() -> None:
    order = make_order()
    left = [set(range(order.usable)) - set(epoch_rows(order, epoch).reshape(-1).tolist()) for epoch in range(20)]
    assert len(left[0]) == order.usable % order.batch_size > 0
    assert len(set.union(*left)) > 3 * len(left[0])


def test_there_are_as_many_streams_as_the_images_of_a_batch_allow() -> None:
    rows = (1 << 20,)
    sizes = (25, 96, 1024, 1536, 2 * MAX_STREAMS, 3000)
    assert [make_order(group_rows=rows, batch_size=size).num_streams for size in sizes] == [
        25, 96, 1024, 1536, MAX_STREAMS, 1500,
    ]  # fmt: skip
    assert make_order(group_rows=rows, batch_size=1024, crops_per_image=4).num_streams == 256


def test_a_stream_reads_each_block_in_one_piece() -> None:
    """Otherwise every sample would decode 64 label maps to use one."""
    order = make_order(group_rows=(64 * 4096,), batch_size=64)
    for stream in (0, 1, 63):
        found = stream_rows(order, 0, stream) // BLOCK_ROWS
        for start in range(0, len(found), order.window_rows):
            window = found[start : start + order.window_rows]
            assert len(np.unique(window)) <= order.window_rows // BLOCK_ROWS + 1


def test_neighbouring_streams_read_the_block_between_them_at_the_same_time() -> None:
    order = make_order(group_rows=(1251,) * 100, batch_size=256)
    blocks = epoch_rows(order, 0) // 1251 * 20 + epoch_rows(order, 0) % 1251 // BLOCK_ROWS
    shared = [
        np.intersect1d(blocks[:window, left], blocks[:window, left + 1])
        for window in [order.window_rows]
        for left in range(1, 255, 2)
    ]
    assert np.mean([len(found) == 1 for found in shared]) > 0.9


def test_rows_are_shuffled_within_windows_and_blocks_among_streams() -> None:
    order = make_order(group_rows=(64 * 4096,), batch_size=64)
    window = stream_rows(order, 0, 0)[: order.window_rows]
    assert abs(np.corrcoef(window, np.arange(len(window)))[0, 1]) < 0.2
    assert abs(np.corrcoef(epoch_rows(order, 0)[0], np.arange(64))[0, 1]) < 0.5
    assert (np.abs(np.diff(window)) == 1).mean() < 0.01


def test_each_epoch_of_a_pass_reads_other_images() -> None:
    """With two crops of each image an epoch reads half of them, and the next one the others."""
    order = make_order(batch_size=128, crops_per_image=2)
    first, second, third = (epoch_rows(order, epoch) for epoch in range(3))
    assert first.shape == (order.steps, 64) == (46, 64)
    assert not np.isin(first, second).any()
    assert np.isin(third, np.concatenate([first, second])).any()


def test_the_first_order_stays_what_it_was() -> None:
    """An earlier release drew these rows; a resumed run goes on with them."""
    order = make_order(FirstOrder, group_rows=(70, 10, 48), undecodable=(3, 100), batch_size=32, seed=7)
    assert order.num_streams == 32
    digests = [hashlib.sha256(epoch_rows(order, epoch).tobytes()).hexdigest()[:16] for epoch in (0, 5)]
    assert digests == ["61bda5820ca3ab38", "d53764f59b619316"]
    assert make_order(FirstOrder, batch_size=96).num_streams == 32


def test_memory_does_not_grow_with_the_rows() -> None:
    """A worker of 64 reads ImageNet-21k's size with as little as a hundredth of it."""
    peaks = []
    for groups in (120, 12_000):
        order = make_order(group_rows=(1251,) * groups, batch_size=1024)
        mine = order.owned(rank=0, world=8, worker=0, workers=8)
        tracemalloc.start()
        for _, _ in zip(order.batches(0, mine), range(2), strict=False):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1] / MIB)
        tracemalloc.stop()
    assert max(peaks) < 4, peaks


def test_blocks_are_the_stores_chunks() -> None:
    assert BLOCK_ROWS == CHUNK_ROWS


def test_fewer_rows_than_one_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="9 usable samples are fewer than one batch of 10; lower batch_size"):
        make_order(group_rows=(6, 4), undecodable=(2,), batch_size=10)


def test_crops_that_do_not_divide_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="crops_per_image=3 does not divide a batch_size of 128; change one of them"):
        make_order(crops_per_image=3)
