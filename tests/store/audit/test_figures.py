import numpy as np
import pytest

from store.audit.figures import image_figures
from store.maps.types import LabelRows


@pytest.mark.parametrize("largest", [60_000, -60_000])
def test_logits_of_any_size_have_probabilities(largest: float) -> None:
    scores = np.full((1, 3, 3, 5), largest, np.float16)
    classes = np.broadcast_to(np.arange(3, dtype=np.uint16)[None, :, None, None], scores.shape)
    maps = LabelRows(classes=classes, scores=scores, tail_logsumexp=None)
    figures = image_figures(maps, np.array([1], np.int32), num_classes=20, temperature=1.0, threshold=0.5)
    expected = 1 / 3 if largest > 0 else 0  # far below the 0 of the other classes nothing is left
    assert figures.label_best[0] == pytest.approx(expected)
    assert figures.label_whole[0] == pytest.approx(expected)
    assert np.isfinite(figures.entropy).all()


def test_maps_that_keep_every_class_have_no_others(recwarn: pytest.WarningsRecorder) -> None:
    scores = np.full((1, 3, 3, 5), -200, np.float16)
    classes = np.broadcast_to(np.arange(3, dtype=np.uint16)[None, :, None, None], scores.shape)
    maps = LabelRows(classes=classes, scores=scores, tail_logsumexp=None)
    figures = image_figures(maps, np.array([1], np.int32), num_classes=3, temperature=1.0, threshold=0.5)
    assert figures.label_best[0] == pytest.approx(1 / 3)
    assert not recwarn.list
