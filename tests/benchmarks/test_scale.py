"""The benchmark at scale, on a few groups: its counts, its own checks, and its clean-up."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.resample import Plan, draw_groups, draw_maps, read_maps
from benchmarks.scale.epoch import check_epoch
from benchmarks.stages import WrongResultError
from store.format.arrays import CHUNK_ROWS
from store.reader import LabelStore
from store.writer import StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema
from trainer.order.sample_order import SampleOrder

BATCH = 64  # the smallest that 8 ranks of 8 workers can share
ROWS, GROUPS = 1_300, 20


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a few maps to resample."""
    path = tmp_path_factory.mktemp("given") / "labels.zarr"
    writer = StoreWriter.open(path, make_schema())
    writer.write("some", make_labels(writer.schema, 70), tar=TAR, provenance=PROVENANCE)
    return path


def command(given: Path, scratch: Path, *options: str) -> list[str]:
    module = [sys.executable, "-m", "benchmarks.scale", "--labels", str(given), "--scratch", str(scratch)]
    return [*module, "--rows", str(ROWS), "--groups", str(GROUPS), "--batch-size", str(BATCH), *options]


def table(text: str) -> dict[str, list[float]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    numbers = [
        (name, cells) for name, *cells in lines if cells and all(re.fullmatch(r"\d[\d,.e+-]*", cell) for cell in cells)
    ]
    return {name: [float(cell.replace(",", "")) for cell in cells] for name, cells in numbers}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_run_counts_what_it_was_asked_for_and_leaves_nothing(given: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(given, tmp_path / "s"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = table(done.stdout)
    assert found["rows"] == [130, 1_300, 10]
    assert found["groups"] == [2, 20, 10]
    assert found["files"][:2] == [2 * 15 + 1, 20 * 15 + 1]  # of a group; the root has one more
    assert found["epoch: batches, all complete"][:2] == [2, 20]
    assert found["epoch: rows, each once"][:2] == [2 * BATCH, 20 * BATCH]
    assert found["epoch: chunks decoded"][1] >= 20 * BATCH / CHUNK_ROWS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_stopped_run_leaves_nothing(given: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "s"
    run = subprocess.Popen(command(given, scratch), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(scratch.glob("*.zarr/imagenet*")) and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_run_is_one_line(given: Path, tmp_path: Path) -> None:
    for options, problem in (
        (("--labels", str(tmp_path / "none")), "no label store here"),
        (("--rows", str(10**13)), "GB are needed"),
        (("--batch-size", "65"), "batch size 65: not a multiple of 64"),
        (("--batch-size", "128000"), "batch size 128,000: more than a tenth of"),
        (("--groups", "1000"), "have too few rows each"),
        (("--scratch", str(given)), "cannot be made"),
    ):
        done = subprocess.run(
            command(given, tmp_path / "s", *options), capture_output=True, text=True, check=False
        )  # fmt: skip
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert problem in done.stderr
        assert list(tmp_path.iterdir()) == []
    assert given.is_dir()


def test_no_map_comes_twice_in_a_chunk(given: Path) -> None:
    maps = read_maps(str(given))
    drawn = draw_maps(maps, 3 * CHUNK_ROWS - 5, np.random.default_rng(0))
    # Mirrored or not, a map keeps its scores.
    ids = [hash(np.sort(scores, axis=None).tobytes()) for scores in drawn.scores]
    assert len(set(ids)) <= len(maps.classes)
    assert all(
        len(set(ids[i : i + CHUNK_ROWS])) == len(ids[i : i + CHUNK_ROWS]) for i in range(0, len(ids), CHUNK_ROWS)
    )


def test_keys_and_digests_are_unique_in_the_whole_store(given: Path) -> None:
    groups = list(draw_groups(read_maps(str(given)), LabelStore.open(given).schema, Plan(rows=500, groups=3)))
    keys = [key for _, labels, _ in groups for key in labels.keys]
    digests = np.concatenate([labels.digests for _, labels, _ in groups])
    assert [len(labels.keys) for _, labels, _ in groups] == [167, 167, 166]
    assert len(set(keys)) == len(set(digests.tolist())) == 500
    assert all(re.fullmatch(r"n\d{8}_\d+", key) for key in keys)


def test_an_epoch_that_lacks_a_row_or_mixes_batches_is_refused() -> None:
    order = SampleOrder(group_rows=(400, 250), undecodable=(), batch_size=128, seed=0)

    def parts() -> list[NDArray[np.int64]]:
        mine = [order.owned(rank=rank, world=8, worker=0, workers=1) for rank in range(8)]
        return [np.stack(list(order.batches(0, m))) for m in mine]

    check_epoch(order, parts())
    twice, swapped = parts(), parts()
    twice[3][1, 0] = twice[2][0, 0]
    swapped[3][[0, 1]] = swapped[3][[1, 0]]
    with pytest.raises(WrongResultError, match="different rows"):
        check_epoch(order, twice)
    with pytest.raises(WrongResultError, match="rows of batch 0"):
        check_epoch(order, swapped)
    with pytest.raises(WrongResultError, match="rows of each"):
        check_epoch(order, parts()[1:])
