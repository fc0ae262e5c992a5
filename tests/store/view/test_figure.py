"""The picture of `relabel-store show --png`: its letters and names."""

import io

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from store.maps.pooling import cell_confidence
from store.maps.types import WHOLE_IMAGE, LabelRow
from store.view.describe import top1_cells
from store.view.figure import _draw_letters, draw_map
from store.view.marks import class_marks, strength
from tests.builders.stores import make_labels
from tests.builders.view_store import view_schema


@pytest.fixture
def row() -> LabelRow:
    labels = make_labels(view_schema(), 1)
    assert labels.tail_logsumexp is not None
    return LabelRow(
        key="k",
        classes=labels.classes[0],
        scores=labels.scores[0],
        tail_logsumexp=labels.tail_logsumexp[0],
        label=3,
        offset=0,
        length=0,
        undecodable=None,
    )


def test_letters_are_as_opaque_as_their_cells_are_probable(row: LabelRow) -> None:
    panel = Figure().subplots()
    _draw_letters(panel, row, class_marks(c for c, _ in top1_cells(row)), WHOLE_IMAGE)
    confidence = cell_confidence(row.scores, row.tail_logsumexp)
    assert [text.get_alpha() for text in panel.texts] == pytest.approx(
        [strength(p) for p in confidence.ravel().tolist()]
    )
    assert np.ptp(confidence) > 0.2


def test_long_names_leave_the_picture_as_large_as_it_is(row: LabelRow, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    names = tuple(f"name {i} of {30 * 'n'}, {60 * 'synonym '}" for i in range(20))
    draw_map(io.BytesIO(), np.zeros((48, 64, 3), np.uint8), row, replace(view_schema(), class_names=names))
    (figure,) = drawn
    figure.draw_without_rendering()
    for text in [*figure.axes[2].get_yticklabels(), *figure.legends[0].get_texts()]:
        extent = text.get_window_extent()
        assert 0 <= extent.x0 <= extent.x1 <= figure.bbox.x1
        assert "synonym" not in text.get_text()
    assert figure.axes[2].get_window_extent().width > 100
