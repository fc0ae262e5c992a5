import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.order.permutation import Permutation


def permuted(seed: int, count: int) -> list[int]:
    return Permutation(np.random.default_rng(seed), count)(np.arange(count)).tolist()  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5_000))
def test_every_number_comes_once(seed: int, count: int) -> None:
    assert sorted(permuted(seed, count)) == list(range(count))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2**40), st.integers(0, 2**40))
def test_a_part_is_computed_without_the_rest(count: int, first: int) -> None:
    first %= count
    part = np.arange(first, min(first + 50, count))
    found = Permutation(np.random.default_rng(0), count)(part)
    assert ((found >= 0) & (found < count)).all()
    assert len(set(found.tolist())) == len(part)
    assert Permutation(np.random.default_rng(0), count)(part[-1:]) == found[-1]


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_every_place_gets_every_number_equally_often(count: int) -> None:
    times = np.zeros((count, count))
    for seed in range(1_000):
        times[np.arange(count), permuted(seed, count)] += 1
    assert np.abs(times / 1_000 - 1 / count).max() < 5 * np.sqrt(1 / count / 1_000)
