import numpy as np
import pytest

from annotator.report import Summary
from annotator.run.rounding import MEASURED_IMAGES, Rounding, round_to
from store.maps.pooling import pool_map, softmax
from tests.builders.stores import make_labels, make_schema

SCHEMA = make_schema()


@pytest.mark.parametrize("step", [1 / 64, 0.25, 1.0, 4.0])
def test_rounded_values_are_the_nearest_multiples_in_the_same_order(step: float) -> None:
    values = -np.sort(-np.random.default_rng(0).normal(0, 30, 5000)).astype(np.float16)
    rounded = round_to(values, step).astype(np.float64)
    assert np.all(np.diff(rounded) <= 0)
    assert not np.mod(rounded, step).any()
    assert np.abs(rounded - values.astype(np.float64)).max() <= step / 2
    assert round_to(np.array([-np.inf], np.float16), step)[0] == -np.inf  # the tail where every class is kept


def test_change_of_each_whole_images_target_is_reported() -> None:
    labels, summary = make_labels(SCHEMA, 30), Summary()
    assert labels.tail_logsumexp is not None
    usable = np.arange(30) % 7 > 0
    classes, scores, _ = Rounding(SCHEMA, 0.5, summary)((labels.classes, labels.scores, labels.tail_logsumexp), usable)
    before, after = (
        np.stack([softmax(pool_map(classes[i], found[i], num_classes=20)) for i in np.flatnonzero(usable)])
        for found in (labels.scores, scores)
    )
    assert np.concatenate(summary.changes) == pytest.approx(np.abs(after - before).max(axis=1), abs=1e-6)
    assert np.concatenate(summary.changes).max() > 0.001


def test_only_the_first_images_are_measured() -> None:
    labels, summary = make_labels(SCHEMA, 700), Summary()
    assert labels.tail_logsumexp is not None
    maps = labels.classes, labels.scores, labels.tail_logsumexp
    rounding = Rounding(SCHEMA, 0.5, summary)
    for _ in range(3):
        rounding(maps, np.ones(700, np.bool_))
    assert [len(part) for part in summary.changes] == [700, MEASURED_IMAGES - 700]
