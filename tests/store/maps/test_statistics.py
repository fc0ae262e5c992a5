from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from store.cli.main import main
from store.maps.pooling import cell_confidence, pool_map, softmax
from store.maps.statistics import StoreStats
from store.maps.types import Fill
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable

SCHEMA = make_schema(map_size=(3, 5))
ROWS, THRESHOLD = 300, 0.3  # more than are counted at once


def test_statistics_are_those_of_a_plain_loop_over_the_rows(tmp_path: Path) -> None:
    labels = mark_undecodable(make_labels(SCHEMA, ROWS), 7, "damaged")
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA).write("a", labels, tar=TAR, provenance=PROVENANCE)
    stats = StoreStats(num_classes=20, threshold=THRESHOLD)
    stats.add(LabelStore.open(path).group("a"))
    found = stats.to_json(SCHEMA)

    entropies: dict[Fill, list[float]] = {"zero": [], "tail": []}
    counts, seen, leads = np.zeros(4, int), np.zeros(20, int), 0
    for row in (row for row in range(ROWS) if row != 7):
        assert labels.tail_logsumexp is not None
        for fill, bits in entropies.items():
            maps = labels.classes[row], labels.scores[row]
            target = softmax(
                pool_map(*maps, num_classes=20, fill=fill, tail_logsumexp_HW=labels.tail_logsumexp[row])
            ).astype(float)
            bits.append(-(target * np.log2(np.maximum(target, 1e-30))).sum())
        sure = cell_confidence(labels.scores[row], labels.tail_logsumexp[row]) >= THRESHOLD
        present = set(labels.classes[row, 0][sure].tolist())
        counts[min(len(present), 3)] += 1
        seen[list(present)] += 1
        leads += int(labels.labels[row]) in labels.classes[row, 0]
    assert found["images"] == ROWS - 1
    assert found["images_with_classes"] == counts.tolist()
    assert found["labelled"] == sum(label >= 0 for row, label in enumerate(labels.labels) if row != 7)
    assert found["label_leads"] == leads > 0
    assert found["several_classes"] == counts[2:].sum() > 0
    for fill, bits in entropies.items():
        assert found["entropy_bits"][fill]["mean"] == pytest.approx(np.mean(bits), abs=1e-4)
        assert found["entropy_bits"][fill]["p95"] == pytest.approx(np.percentile(bits, 95), abs=1e-3)
    assert {entry["class"]: entry["images"] for entry in found["most_seen"]}.items() <= dict(enumerate(seen)).items()
    assert found["most_seen"][0]["images"] == seen.max()


@pytest.mark.parametrize(("scale", "warned"), [(0.01, True), (20.0, False)])
def test_nearly_uniform_targets_are_told(tmp_path: Path, scale: float, warned: bool) -> None:
    labels = make_labels(SCHEMA, 40)
    labels = replace(labels, scores=labels.scores * np.float16(scale), tail_logsumexp=None)
    path = tmp_path / "labels.zarr"
    StoreWriter.open(path, SCHEMA).write("a", labels, tar=TAR, provenance=PROVENANCE)
    said = " ".join(CliRunner().invoke(main, ["stats", str(path)]).output.split())
    assert "of at most 4.32; 5 %" in said  # log2(20)
    assert ("nearly uniform, students learn little of these" in said) == warned


def test_cell_confidence_is_the_softmax_with_the_tail() -> None:
    logits = np.array([3.0, 2.0, 1.0, 0.5, 0.0], np.float32)
    scores = logits[:2].reshape(1, 2, 1, 1).astype(np.float16)
    tail_logsumexp = np.log(np.exp(logits[2:]).sum()).reshape(1, 1, 1).astype(np.float16)
    assert cell_confidence(scores, tail_logsumexp)[0, 0, 0] == pytest.approx(
        np.exp(3.0) / np.exp(logits).sum(), rel=1e-3
    )
    assert cell_confidence(scores, None)[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-1.0)), rel=1e-3)


def test_store_without_groups_has_statistics_too(tmp_path: Path) -> None:
    assert StoreStats(num_classes=20, threshold=0.5).to_json(SCHEMA)["entropy_bits"] == {}
