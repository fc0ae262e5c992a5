import numpy as np
import pytest

from store.maps.pooling import cell_confidence, pool_map
from store.maps.statistics import labels_top1, pool_whole, top1_classes
from store.maps.types import LabelRows
from tests.builders.stores import make_labels, make_schema

SCHEMA = make_schema(map_size=(3, 5))


def make_maps(rows: int) -> LabelRows:
    labels = make_labels(SCHEMA, rows)
    return LabelRows(classes=labels.classes, scores=labels.scores, tail_logsumexp=labels.tail_logsumexp)


def test_logits_of_many_images_are_those_of_each() -> None:
    maps = make_maps(9)
    expected = [pool_map(maps.classes[i], maps.scores[i], num_classes=20) for i in range(9)]
    np.testing.assert_allclose(pool_whole(maps, num_classes=20), expected, atol=1e-5)


def test_top1_classes_and_labels_are_those_of_a_plain_loop() -> None:
    maps, labels = make_maps(4), np.array([-1, 3, 7, 19], np.int32)
    seen = {int(c) for c in maps.classes[:, 0].ravel()}
    assert np.flatnonzero(top1_classes(maps, num_classes=20)).tolist() == sorted(seen) != list(range(20))
    expected = [label in maps.classes[i, 0] for i, label in enumerate(labels.tolist())]
    assert labels_top1(maps, labels).tolist() == expected
    assert len(set(expected)) == 2


@pytest.mark.parametrize("with_tail", [True, False])
def test_selected_rows_are_those_of_the_arrays(with_tail: bool) -> None:
    labels = make_labels(SCHEMA, 5, with_tail=with_tail)
    maps = LabelRows(classes=labels.classes, scores=labels.scores, tail_logsumexp=labels.tail_logsumexp)
    for rows in (np.array([3, 1]), np.array([True, False, False, True, False])):
        selected = maps.select(rows)
        assert np.array_equal(selected.classes, labels.classes[rows])
        assert np.array_equal(selected.scores, labels.scores[rows])
        if labels.tail_logsumexp is None:
            assert selected.tail_logsumexp is None
        else:
            assert selected.tail_logsumexp is not None
            assert np.array_equal(selected.tail_logsumexp, labels.tail_logsumexp[rows])


def test_cell_confidence_is_the_softmax_with_the_tail() -> None:
    logits = np.array([3.0, 2.0, 1.0, 0.5, 0.0], np.float32)
    scores = logits[:2].reshape(1, 2, 1, 1).astype(np.float16)
    tail_logsumexp = np.log(np.exp(logits[2:]).sum()).reshape(1, 1, 1).astype(np.float16)
    assert cell_confidence(scores, tail_logsumexp)[0, 0, 0] == pytest.approx(
        np.exp(3.0) / np.exp(logits).sum(), rel=1e-3
    )
    assert cell_confidence(scores, None)[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)), rel=1e-3)
