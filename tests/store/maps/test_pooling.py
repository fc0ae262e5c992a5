import numpy as np
import pytest
import torch

from store.errors import LabelMapError
from store.maps.pooling import KINDS, crop_target
from store.maps.types import LabelRow, TargetKind
from store.maps.types import TargetKind as TrainerKind
from tests.builders.stores import make_labels, make_schema
from trainer.targets.targets import LabelBatch, TargetMaker

SCHEMA = make_schema(num_classes=20, top_k=3, map_size=(5, 7))


def make_row(seed: int, *, target: int) -> LabelRow:
    labels = make_labels(SCHEMA, 1, seed)
    return LabelRow(
        key="k",
        classes=labels.classes[0],
        scores=labels.scores[0],
        tail_logsumexp=None if labels.tail_logsumexp is None else labels.tail_logsumexp[0],
        label=target,
        offset=0,
        length=0,
        undecodable=None,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.25, 3.0])
def test_every_target_equals_the_trainers(kind: TargetKind, temperature: float) -> None:
    for seed in range(20):
        row = make_row(seed, target=seed)
        rng = np.random.default_rng(seed)
        (x1, x2), (y1, y2) = np.sort(rng.random((2, 2))) if seed % 2 else ((1 / 7, 3 / 7), (2 / 5, 1.0))
        box = float(x1), float(y1), float(x2), float(y2)
        make = TargetMaker(kind=kind, num_classes=20, temperature=temperature, original_weight=0.0, label_smoothing=0.0)
        batch = LabelBatch(
            classes=torch.from_numpy(row.classes[None]),
            scores=torch.from_numpy(row.scores[None]),
            boxes=torch.tensor([box]),
            labels=torch.tensor([seed]),
        )
        found = crop_target(SCHEMA, row, box=box, kind=kind, temperature=temperature)
        assert np.abs(found - make(batch)[0].numpy()).max() < 1e-5


def test_kinds_are_the_trainers() -> None:
    assert TrainerKind.__args__ == KINDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", [-1, 20])
def test_row_without_a_label_of_the_teachers_has_no_original_target(target: int) -> None:
    with pytest.raises(LabelMapError, match="'k' has no label among the teacher's classes"):
        crop_target(SCHEMA, make_row(0, target=target), kind="original")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_that_divide_nothing_are_refused(temperature: float) -> None:
    with pytest.raises(LabelMapError, match="expected a number above 0"):
        crop_target(SCHEMA, make_row(0, target=0), temperature=temperature)
