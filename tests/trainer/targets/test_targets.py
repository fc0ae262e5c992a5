from typing import Any, get_args

import pytest
import torch

from store.maps.types import TargetKind
from tests.builders.maps import random_boxes, random_maps
from trainer.targets.pooling import pool_logits
from trainer.targets.targets import LabelBatch, TargetMaker, one_hot, soft_cross_entropy

KINDS = get_args(TargetKind)
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def make_batch(batch: int = 16) -> LabelBatch:
    classes, scores = random_maps(0, batch, 3, 8, 4, 5)
    return LabelBatch(
        classes=classes,
        scores=scores,
        boxes=random_boxes(0, batch, 4, 5),
        labels=torch.arange(batch) % 8,
    )


def maker(**changes: Any) -> TargetMaker:
    values: dict[str, Any] = {
        "kind": "relabel",
        "num_classes": 8,
        "temperature": 1.0,
        "original_weight": 0.0,
        "label_smoothing": 0.0,
    }
    return TargetMaker(**(values | changes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_rows_of_every_kind_sum_to_one(kind: TargetKind, temperature: float, weight: float) -> None:
    weight = 0.0 if kind == "original" else weight
    targets = maker(kind=kind, temperature=temperature, original_weight=weight, label_smoothing=0.1)(make_batch())
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    assert targets.min() >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_targets_do_not_depend_on_the_batch_size(kind: TargetKind) -> None:
    batch = make_batch()
    first = LabelBatch(
        classes=batch.classes[:1], scores=batch.scores[:1], boxes=batch.boxes[:1], labels=batch.labels[:1],
    )  # fmt: skip
    torch.testing.assert_close(maker(kind=kind)(first), maker(kind=kind)(batch)[:1])


def test_relabel_is_the_softmax_of_the_pooled_box() -> None:
    batch = make_batch()
    expected = pool_logits(batch.classes, batch.scores, batch.boxes, num_classes=8).softmax(1)
    torch.testing.assert_close(maker()(batch), expected)


def test_temperature_divides_the_pooled_logits() -> None:
    batch = make_batch()
    for kind, boxes in (("relabel", batch.boxes), ("global", WHOLE.repeat(16, 1))):
        logits = pool_logits(batch.classes, batch.scores, boxes, num_classes=8)
        torch.testing.assert_close(maker(kind=kind, temperature=2.0)(batch), (logits / 2).softmax(1))


def test_global_kinds_pool_the_whole_map_and_single_kinds_are_its_arg_max() -> None:
    batch = make_batch()
    whole = pool_logits(batch.classes, batch.scores, WHOLE.repeat(16, 1), num_classes=8)
    local = pool_logits(batch.classes, batch.scores, batch.boxes, num_classes=8)
    torch.testing.assert_close(maker(kind="global")(batch), whole.softmax(1))
    assert torch.equal(maker(kind="global-single")(batch), one_hot(whole.argmax(1), 8))
    assert torch.equal(maker(kind="local-single")(batch), one_hot(local.argmax(1), 8))
    assert not torch.equal(whole.argmax(1), local.argmax(1))


def test_original_labels_are_smoothed_over_all_classes() -> None:
    targets = maker(kind="original", label_smoothing=0.2)(make_batch())
    assert targets[3, 3] == pytest.approx(0.8 + 0.2 / 8)
    assert targets[3, 4] == pytest.approx(0.2 / 8)


def test_original_weight_mixes_the_two_targets() -> None:
    batch = make_batch()
    mixed = maker(original_weight=0.25, label_smoothing=0.1)(batch)
    original = maker(kind="original", label_smoothing=0.1)(batch)
    torch.testing.assert_close(mixed, 0.75 * maker()(batch) + 0.25 * original)


def test_originals_of_minus_one_do_no_harm_where_they_are_not_needed() -> None:
    batch = make_batch()
    without = LabelBatch(classes=batch.classes, scores=batch.scores, boxes=batch.boxes, labels=torch.full((16,), -1))
    assert torch.equal(maker()(without), maker()(batch))


def test_soft_cross_entropy_of_hard_targets_is_cross_entropy() -> None:
    logits, labels = torch.randn(6, 8), torch.arange(6)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(soft_cross_entropy(logits, one_hot(labels, 8)), expected)


def test_soft_cross_entropy_of_tokens_is_the_mean_over_images_and_tokens() -> None:
    batch = make_batch()
    targets = pool_logits(batch.classes, batch.scores, batch.boxes, num_classes=8, grid=2).flatten(1, 2).softmax(-1)
    logits = torch.randn(16, 4, 8)
    every = [soft_cross_entropy(logits[:, token], targets[:, token]) for token in range(4)]
    torch.testing.assert_close(soft_cross_entropy(logits, targets), torch.stack(every).mean())
