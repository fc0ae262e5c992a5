from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotator.report import Summary
from pipelines.annotate.check import check_targets
from pipelines.annotate.progress import ANNOTATE
from pipelines.annotate.run import run_shards
from store.writer import GroupLabels, StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema, mark_undecodable

SCHEMA = make_schema()


def labels_of(top1: int, others: int, unlabelled: int) -> GroupLabels:
    """Rows whose label is top-1 in one cell of their map, rows whose label is in none, and rows without a label."""
    labels = make_labels(SCHEMA, top1 + others + unlabelled)
    nowhere = [min(set(range(20)) - set(row[0].ravel().tolist())) for row in labels.classes]
    ids = np.array(nowhere, np.int32)
    ids[:top1] = labels.classes[:top1, 0, 1, 2]
    ids[top1 + others :] = -1
    return replace(labels, labels=ids)


def store(path: Path, labels: GroupLabels) -> Path:
    StoreWriter.open(path, SCHEMA).write("a", labels, tar=TAR, provenance=PROVENANCE)
    return path


def notices(path: Path) -> str:
    return "; ".join(check_targets(path, "a"))


@pytest.mark.parametrize(
    ("top1", "others", "warned"), [(10, 10, False), (9, 11, True), (0, 0, False), (0, 19, False), (0, 300, True)]
)
def test_labels_that_are_top1_nowhere_are_warned(tmp_path: Path, top1: int, others: int, warned: bool) -> None:
    warning = notices(store(tmp_path / "labels.zarr", labels_of(top1, others, unlabelled=5)))
    assert ("top-1 in no cell" in warning) == warned
    if warned:
        seen = min(top1 + others, 256)
        assert f"{seen - top1} of {seen} labels are top-1 in no cell of their image: check that the teacher" in warning


def test_undecodable_rows_are_not_counted(tmp_path: Path) -> None:
    labels = labels_of(20, 21, unlabelled=0)
    assert "top-1 in no cell" in notices(store(tmp_path / "all.zarr", labels))
    for row in (20, 21):
        labels = mark_undecodable(labels, row, "damaged")
    assert "top-1 in no cell" not in notices(store(tmp_path / "labels.zarr", labels))


def test_nearly_uniform_targets_are_warned(tmp_path: Path) -> None:
    labels = labels_of(40, 0, unlabelled=0)
    for factor in (0.01, 20):
        scaled = replace(labels, scores=labels.scores * np.float16(factor), tail_logsumexp=None)
        warned = "the targets are nearly uniform" in notices(store(tmp_path / str(factor), scaled))
        assert warned == (factor < 1)


def test_first_group_of_several_is_checked_while_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = store(tmp_path / "labels.zarr", labels_of(0, 20, unlabelled=0))

    def work(summary: Summary, _: object) -> None:
        for _ in range(2):
            tell(summary)

    run_shards(work, 2, labels, ANNOTATE)
    assert capsys.readouterr().err.count("warning: 20 of 20 labels are top-1 in no cell") == 1


def test_a_run_ends_with_the_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = store(tmp_path / "labels.zarr", labels_of(0, 20, unlabelled=0))
    run_shards(lambda summary, _: tell(summary), 1, labels, ANNOTATE)
    assert "check that the teacher numbers the classes as the shards do" in capsys.readouterr().out


def test_a_store_that_is_gone_does_not_fail_the_run(tmp_path: Path) -> None:
    warning = notices(tmp_path / "labels.zarr")
    assert warning.startswith(f"the written labels cannot be read: {tmp_path / 'labels.zarr'}")


def tell(summary: Summary) -> None:
    summary.committed(Path("a.tar"), 3)
