"""SIGTERM and SIGHUP to commands whose worker processes are at work: they end quietly, and leave nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.builders.stores import make_members, write_tar
from tests.builders.training import make_dataset

# A name of a semaphore that a process has opened; the process that made it shows another name, as deleted.
SEMAPHORE = re.compile(r"/dev/shm/(sem\.\S+)$", re.MULTILINE)

# A pool of worker processes, each with a loader of its own, as `pipelines.reproduce` trains students.
POOL = """
import sys, time
from torch.utils.data import Dataset
from pipelines.reproduce.students import _processes
from store.system.signals import ended_by_signals
from trainer.data.loading import load_items

class Endless(Dataset):
    def __len__(self):
        return 1_000_000

    def __getitem__(self, i):
        time.sleep(0.01)
        return i

def load():
    for i in load_items(Endless(), workers=1, preload=[load_items.__module__]):
        if i == 0:
            print("working", file=sys.stderr, flush=True)

if __name__ == "__main__":
    with ended_by_signals(), _processes(1) as pool:
        pool.submit(load).result()
"""


def annotate(folder: Path) -> list[str]:
    write_tar(folder / "a.tar", make_members(200))
    teacher = ("--teacher", "tests.builders.slow_teacher:make", "--teacher-arg", "seconds=0.2", "--input-size", "64")
    rest = ("--mean", "0.5", "--std", "0.5", "--batch-size", "2", "--workers", "2")
    return [
        "-m",
        "pipelines.annotate",
        "run",
        "--shards",
        f"{folder}/a.tar",
        "--labels",
        f"{folder}/l",
        *teacher,
        *rest,
    ]


def train(folder: Path) -> list[str]:
    data = make_dataset(folder)
    settings = ("workers=2", "epochs=1000", "batch_size=4", "image_size=16", "val_size=16", "log_interval=1")
    return [
        *("-m", "pipelines.train", "run", "--recipe", "demo", "--out", str(folder / "run")),
        *(text for shard in data.shards for text in ("--shards", str(shard))),
        *("--labels", str(data.labels), *(text for setting in settings for text in ("--set", setting))),
    ]


def pool(folder: Path) -> list[str]:
    (folder / "program.py").write_text(POOL)
    return [str(folder / "program.py")]


@pytest.mark.parametrize(
    ("command", "working", "statuses"),
    [
        (annotate, "", {143}),
        pytest.param(annotate, "", {129}, marks=pytest.mark.slow),
        (train, "", {143, 0}),  # while the shards are compared with their labels; 0 from the first step on
        pytest.param(train, "epoch 1/1000", {0}, marks=pytest.mark.slow),
        pytest.param(pool, "working", {143}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("to_all", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_signal_leaves_no_semaphore_and_no_warning(
    tmp_path: Path, command: Callable[[Path], Sequence[str]], working: str, statuses: set[int], *, to_all: bool
) -> None:
    number = signal.SIGHUP if 129 in statuses else signal.SIGTERM
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command(tmp_path)], stdout=subprocess.DEVNULL, stderr=stderr, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: working in read(stderr.name) and len(semaphores_of(process)) > 0, process)
        semaphores = semaphores_of(process)
        os.killpg(process.pid, number) if to_all else process.send_signal(number)
        assert process.wait(timeout=60) in statuses, read(stderr.name)
        wait_until(lambda: not processes_of(process))  # the resource tracker is the last to print
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    said = read(stderr.name)
    assert "resource_tracker" not in said
    assert "Traceback" not in said, said
    assert not [name for name in semaphores if Path("/dev/shm", name).exists()]


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read(file: str) -> str:
    return Path(file).read_text()


def processes_of(process: "subprocess.Popen[bytes]") -> list[str]:
    """The process and all that were started by it."""
    found = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def semaphores_of(process: "subprocess.Popen[bytes]") -> set[str]:
    """The named semaphores that a command's processes have open."""
    found: set[str] = set()
    for pid in processes_of(process):
        with suppress(OSError):  # it has ended
            found.update(SEMAPHORE.findall(Path("/proc", pid, "maps").read_text()))
    return found
