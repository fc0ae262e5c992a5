import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.order import blocks as blocks_module
from trainer.order.blocks import BLOCK_ROWS, BlockPass, Blocks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=9), st.data())
def test_blocks_hold_every_usable_row_once_and_end_with_their_group(groups: list[int], data: st.DataObject) -> None:
    gaps = data.draw(st.sets(st.integers(0, max(sum(groups) - 1, 0)))) if sum(groups) else set()
    blocks = Blocks(groups, sorted(gaps))
    every = np.arange(len(blocks))
    assert len(blocks) == sum(-(-rows // BLOCK_ROWS) for rows in groups)
    assert blocks.rows(every).tolist() == [row for row in range(sum(groups)) if row not in gaps]
    assert blocks.sizes(every).tolist() == [len(blocks.rows(every[i : i + 1])) for i in every]
    group = np.repeat(np.arange(len(groups)), groups)
    assert all(len(np.unique(group[blocks.rows(every[i : i + 1])])) <= 1 for i in every)


@pytest.mark.parametrize(("marks", "pieces"), [(1 << 16, 1 << 12), (5, 2), (1, 1)])
def test_rows_at_a_place_do_not_depend_on_the_marks(marks: int, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few marks are those of a training set with many rows."""
    groups, gaps = (200, 0, 37, 640, 64), (0, *range(237, 301), 900)

    def read(length: int) -> list[int]:
        rows = BlockPass(Blocks(groups, gaps), np.random.default_rng(0))
        places = np.arange(0, sum(groups) - len(gaps) - length + 1, length)
        return rows.rows(places, length).reshape(-1).tolist()

    [whole, *_] = [read(sum(groups) - len(gaps))]
    monkeypatch.setattr(blocks_module, "MAX_MARKS", marks)
    monkeypatch.setattr(blocks_module, "PIECE_MARKS", pieces)
    for length in (1, 7, 100):
        found = read(length)
        assert found == whole[: len(found)]
    assert sorted(whole) == [row for row in range(sum(groups)) if row not in gaps]
