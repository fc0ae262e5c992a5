from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotator.report import Summary
from pipelines.annotate.progress import ANNOTATE
from pipelines.annotate.run import doubt_numbering, run_shards
from store.writer import GroupLabels, StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable

SCHEMA = make_schema()


def labels_of(leading: int, others: int, unlabelled: int) -> GroupLabels:
    """So many rows whose label leads in one cell of their map, and others whose label leads nowhere, or is none."""
    labels = make_labels(SCHEMA, leading + others + unlabelled)
    nowhere = [min(set(range(20)) - set(row[0].ravel().tolist())) for row in labels.classes]
    targets = np.array(nowhere, np.int32)
    targets[:leading] = labels.classes[:leading, 0, 1, 2]
    targets[leading + others :] = -1
    return replace(labels, labels=targets)


def store(path: Path, labels: GroupLabels) -> Path:
    StoreWriter.open(path, SCHEMA).write("a", labels, tar=TAR, provenance=PROVENANCE)
    return path


@pytest.mark.parametrize(
    ("leading", "others", "doubted"), [(10, 10, False), (9, 11, True), (0, 0, False), (0, 19, False), (0, 300, True)]
)
def test_labels_that_lead_nowhere_are_doubted(tmp_path: Path, leading: int, others: int, doubted: bool) -> None:
    doubt = doubt_numbering(store(tmp_path / "labels.zarr", labels_of(leading, others, unlabelled=5)), "a")
    assert (doubt is not None) == doubted
    if doubt:
        seen = min(leading + others, 256)
        assert doubt.startswith(f"only {leading} of {seen} labels of a lead in any cell of their map; does")


def test_quarantined_rows_count_for_nothing(tmp_path: Path) -> None:
    labels = labels_of(20, 21, unlabelled=0)
    assert doubt_numbering(store(tmp_path / "all.zarr", labels), "a") is not None
    for row in (20, 21):
        labels = mark_undecodable(labels, row, "damaged")
    assert doubt_numbering(store(tmp_path / "labels.zarr", labels), "a") is None


def test_a_run_ends_with_the_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = store(tmp_path / "labels.zarr", labels_of(0, 20, unlabelled=0))
    run_shards(lambda summary, _: tell(summary), 1, labels, ANNOTATE)
    assert "does the teacher number its classes as the shards do?" in capsys.readouterr().out.splitlines()[-1]


def test_a_store_that_is_gone_does_not_fail_the_run(tmp_path: Path) -> None:
    doubt = doubt_numbering(tmp_path / "labels.zarr", "a")
    assert doubt is not None
    assert doubt.startswith(f"what was written cannot be looked at: {tmp_path / 'labels.zarr'}")


def tell(summary: Summary) -> None:
    summary.committed(Path("a.tar"), 3)
