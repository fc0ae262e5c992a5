"""Runs in processes of their own that are stopped and killed, on one rank and on several."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.builders.training import Dataset, assert_same_state, make_dataset, metrics, write_shard

TORCHRUN = ["-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
STEPS = 4  # in an epoch
RUN = ["-m", "tests.builders.training_process"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    data = make_dataset(tmp_path_factory.mktemp("resume"), (70, 10, 48))
    write_shard(data.val[0], 100, first=90_000)  # four batches, so that an evaluation can be stopped within
    return data


def start(
    data: Dataset, out: Path, *settings: str, ranks: int = 1, pace: float = 0.0, restarts: int = 0, seen: str = ""
) -> subprocess.Popen[str]:
    launcher = [*TORCHRUN, "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)] if ranks > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, *RUN, str(data.labels.parent), str(out), *settings],
        cwd=ROOT,
        env={**os.environ, "PACE": str(pace), "SEEN": seen, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def after_lines(process: subprocess.Popen[str], count: int, word: str = "step") -> None:
    """Wait until the run has said a word so many times."""
    assert process.stdout is not None
    for line in process.stdout:
        count -= line.startswith(word)
        if not count:
            return
    raise AssertionError(f"the run ended first: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def uninterrupted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert finish(start(data, out, "checkpoint_interval=3")).endswith("done 3 0 True\n")
    return out


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        (6, "step"),
        pytest.param(2, "evaluating", marks=pytest.mark.slow),
        pytest.param(1, "step", marks=pytest.mark.slow),
        pytest.param(1, "evaluating", marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_by_sigterm_leaves_with_status_0_and_goes_on_bit_for_bit(
    data: Dataset, uninterrupted: Path, tmp_path: Path, steps: int, word: str
) -> None:
    process = start(data, tmp_path / "run", "checkpoint_interval=3", pace=0.3)
    after_lines(process, steps, word)
    process.send_signal(signal.SIGTERM)
    epochs, done, finished = finish(process).split()[-3:]
    assert finished == "False"
    if word == "step":  # it came during the next one, or at the latest during the one after
        assert steps < STEPS * int(epochs) + int(done) <= steps + 2
    else:
        assert (epochs, done) == ("0", str(STEPS))
    assert finish(start(data, tmp_path / "run", "checkpoint_interval=3")).endswith("done 3 0 True\n")
    assert_same_state(tmp_path / "run", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_at_random_again_and_again_ends_bit_for_bit_as_if_never(
    data: Dataset, uninterrupted: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(3):
        process = start(data, tmp_path / "run", "checkpoint_interval=3", "workers=2", pace=0.05)
        try:
            after_lines(process, rng.randint(1, 4))
        except AssertionError:
            continue  # so short was what is left
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
        process.communicate(timeout=60)
    finish(start(data, tmp_path / "run", "checkpoint_interval=3"))
    assert_same_state(tmp_path / "run", uninterrupted)
    losses = [line for line in metrics(tmp_path / "run") if line["kind"] == "epoch"]
    assert losses == [line for line in metrics(uninterrupted) if line["kind"] == "epoch"]


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture(scope="module")
def of_two_ranks(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "two"
    assert finish(start(data, out, ranks=2)).endswith("done 3 0 True\n")
    return out


@pytest.mark.slow
def test_sigterm_on_one_of_two_ranks_stops_both_after_the_same_step(
    data: Dataset, of_two_ranks: Path, tmp_path: Path
) -> None:
    process = start(data, tmp_path / "run", ranks=2, pace=0.2)
    after_lines(process, 2)
    os.kill(children(process)[1], signal.SIGTERM)
    epochs, done, finished = finish(process).split()[-3:]
    assert finished == "False"
    assert 2 < STEPS * int(epochs) + int(done) <= 4
    assert finish(start(data, tmp_path / "run", ranks=2)).endswith("done 3 0 True\n")
    assert_same_state(tmp_path / "run", of_two_ranks)


@pytest.mark.slow
def test_a_rank_that_is_killed_is_started_again_and_the_run_goes_on(
    data: Dataset, of_two_ranks: Path, tmp_path: Path
) -> None:
    process = start(data, tmp_path / "run", "checkpoint_interval=2", ranks=2, pace=0.2, restarts=1)
    after_lines(process, 3)
    os.kill(children(process)[1], signal.SIGKILL)
    assert finish(process).endswith("done 3 0 True\n")
    assert_same_state(tmp_path / "run", of_two_ranks)


def test_a_rank_that_is_killed_ends_the_run_in_one_line_that_says_so(data: Dataset, tmp_path: Path) -> None:
    process = start(data, tmp_path / "run", ranks=2, pace=0.2)
    after_lines(process, 2)
    os.kill(children(process)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    (error,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: another rank died, or cannot be reached (")
    assert "run again with --resume" in error


@pytest.mark.slow
def test_two_ranks_resumed_as_one_see_every_remaining_sample_once(data: Dataset, tmp_path: Path) -> None:
    for name in ("first", "then", "whole"):
        (tmp_path / name).mkdir()
    process = start(data, tmp_path / "run", ranks=2, pace=0.2, seen=str(tmp_path / "first"))
    after_lines(process, 6)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on, and ends with a status of its own
    process.communicate(timeout=60)
    finish(start(data, tmp_path / "run", seen=str(tmp_path / "then")))
    finish(start(data, tmp_path / "one", seen=str(tmp_path / "whole")))

    def crops(*names: str) -> list[str]:
        files = (file for name in names for file in (tmp_path / name).iterdir())
        return sorted(line for file in files for line in file.read_text().splitlines())

    assert len(list((tmp_path / "first").iterdir())) == 2
    assert 0 < len(crops("first")) < len(crops("whole")) == 3 * 128
    assert crops("first", "then") == crops("whole")


def test_a_folder_in_which_another_process_trains_is_refused(data: Dataset, tmp_path: Path) -> None:
    process = start(data, tmp_path / "run", "epochs=1000", pace=0.2)
    after_lines(process, 1)
    other = start(data, tmp_path / "run", "epochs=1000")
    _, err = other.communicate(timeout=60)
    assert (other.returncode, err.strip()) == (
        1, f"error: {tmp_path / 'run'}: another process trains there; wait for it, or choose another folder",
    )  # fmt: skip
    process.send_signal(signal.SIGTERM)
    finish(process)
