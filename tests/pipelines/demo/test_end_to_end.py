"""A user's whole path in real processes: annotate, kill, resume, show, train, kill, resume."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.digits.scenes import CLASS_NAMES
from pipelines.digits.shards import write_shards
from pipelines.digits.teacher import TEACHER_NAME, TEACHER_WEIGHTS
from store.reader import LabelStore

DEADLINE = 120.0  # seconds


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def finish(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command(module, *arguments), capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert result.returncode == status, result.stderr
    return result


def kill_when(happened: Callable[[], bool], module: str, *arguments: object) -> None:
    """Start a command, and SIGKILL it and its workers as soon as the condition holds."""
    process = subprocess.Popen(
        command(module, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + DEADLINE
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert happened()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    write_shards(folder, "train", 256, 4, 7)
    write_shards(folder, "val", 32, 1, 7)
    return folder


def test_whole_path_survives_being_killed(folder: Path) -> None:
    labels, out, names = folder / "labels.zarr", folder / "run", folder / "names.txt"
    names.write_text("\n".join(CLASS_NAMES))
    annotate = (
        "pipelines.annotate", "run", "--shards", folder / "digits-train-{0000..0003}.tar", "--labels", labels,
        "--teacher", TEACHER_NAME, "--teacher-arg", "output_stride=8", "--checkpoint", TEACHER_WEIGHTS,
        "--num-classes", 10, "--input-size", 120, "--mean", 0.5, "--std", 0.5, "--class-names", names,
        "--batch-size", 2, "--workers", 1,
    )  # fmt: skip
    kill_when((labels / "digits-train-0000" / "zarr.json").exists, *annotate)
    done = LabelStore.open(labels).names()
    assert "digits-train-0000" in done
    assert len(done) < 4
    resumed = finish(*annotate)
    assert f"{4 - len(done)} shards annotated, {len(done)} were there already, 0 failed" in resumed.stdout

    shown = finish("store.cli.main", "show", labels, "--json")
    assert json.loads(shown.stdout)["rows"] == 256
    row = json.loads(finish("store.cli.main", "show", labels, "train-000200", "--json").stdout)
    assert (row["group"], row["row"]) == ("digits-train-0003", 8)
    assert "top-1 class" in finish("store.cli.main", "show", labels, "train-000200").stdout

    train = (
        "pipelines.train", "run", "--recipe", "demo", "--shards", folder / "digits-train-*.tar", "--labels", labels,
        "--val", folder / "digits-val-*.tar", "--out", out, "--set", "epochs=8", "--set", "warmup_epochs=0",
        "--set", "workers=1",
    )  # fmt: skip
    kill_when(lambda: any(out.glob("step-*.pt")), *train)
    refused = finish(*train, status=1)
    assert refused.stderr.startswith("error: ")
    assert "--resume" in refused.stderr
    finish(*train, "--resume")
    epochs = [record for record in read_metrics(out) if record["kind"] == "epoch"]
    assert [record["epoch"] for record in epochs] == list(range(1, 9))
    assert all(record["samples"] == 32 for record in epochs)
    assert json.loads((out / "settings.json").read_text())


def read_metrics(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
