import numpy as np
import pytest

from store.audit.figures import image_figures
from store.maps.pooling import pool_map
from store.maps.statistics import pool_whole
from store.maps.types import Fill, LabelRows
from tests.builders.stores import make_labels, make_schema

SCHEMA = make_schema(map_size=(3, 5))


@pytest.mark.parametrize("fill", ["zero", "tail", "min"])
def test_logits_of_many_images_are_those_of_each(fill: Fill) -> None:
    labels = make_labels(SCHEMA, 9)
    assert labels.tail_logsumexp is not None
    maps = LabelRows(classes=labels.classes, scores=labels.scores, tail_logsumexp=labels.tail_logsumexp)
    expected = [
        pool_map(
            labels.classes[i], labels.scores[i], num_classes=20, fill=fill, tail_logsumexp_HW=labels.tail_logsumexp[i]
        )
        for i in range(9)
    ]
    np.testing.assert_allclose(pool_whole(maps, num_classes=20, fill=fill), expected, atol=1e-5)


@pytest.mark.parametrize("largest", [60_000, -60_000])
def test_logits_of_any_size_have_probabilities(largest: float) -> None:
    scores = np.full((1, 3, 3, 5), largest, np.float16)
    classes = np.broadcast_to(np.arange(3, dtype=np.uint16)[None, :, None, None], scores.shape)
    maps = LabelRows(classes=classes, scores=scores, tail_logsumexp=None)
    figures = image_figures(maps, np.array([1], np.int32), num_classes=20, fill="zero", threshold=0.5)
    expected = 1 / 3 if largest > 0 else 0  # far below the fill of the other classes nothing is left
    assert figures.label_best[0] == pytest.approx(expected)
    assert figures.label_whole[0] == pytest.approx(expected)
    assert np.isfinite(figures.entropy).all()


def test_maps_that_keep_every_class_have_no_others(recwarn: pytest.WarningsRecorder) -> None:
    scores = np.full((1, 3, 3, 5), -200, np.float16)
    classes = np.broadcast_to(np.arange(3, dtype=np.uint16)[None, :, None, None], scores.shape)
    maps = LabelRows(classes=classes, scores=scores, tail_logsumexp=None)
    figures = image_figures(maps, np.array([1], np.int32), num_classes=3, fill="zero", threshold=0.5)
    assert figures.label_best[0] == pytest.approx(1 / 3)
    assert not recwarn.list
