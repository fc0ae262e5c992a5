"""`relabel-annotate run` as processes of their own: a service, a signal, several at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import RelabelError
from store.reader import LabelStore
from tests.builders.paths import ROOT
from tests.builders.stores import make_members, write_tar
from tests.builders.teachers import save_weights

# The command with a shorter pause between two looks.
QUICK = (
    "import annotator.run.watch; annotator.run.watch.PAUSE = 0.2; from pipelines.annotate.__main__ import main; main()"
)
SLOW = ("--teacher", "tests.builders.slow_teacher:make", "--teacher-arg", "seconds=0.3",
        "--input-size", "64", "--mean", "0.5", "--std", "0.5", "--batch-size", "2")  # fmt: skip


def start(labels: Path, pattern: object, *more: str, python: tuple[str, ...] = ("-c", QUICK)) -> subprocess.Popen[str]:
    command = [sys.executable, *python, "run", "--shards", str(pattern), "--labels", str(labels), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)


def resnet(folder: Path) -> tuple[str, ...]:
    weights = save_weights(folder / "teacher.safetensors")
    return ("--teacher", "test_resnet", "--checkpoint", str(weights), "--num-classes", "12", "--input-size", "64x96",
            "--workers", "1")  # fmt: skip


def names(labels: Path) -> list[str]:
    try:
        return LabelStore.open(labels).names()
    except RelabelError:
        return []


def group_of(process: subprocess.Popen[str]) -> list[str]:
    """The processes that a run has started, and itself."""
    found = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.05)


def said_until(process: subprocess.Popen[str], words: str) -> str:
    """What a run says up to a line with these words: a group is in the store before the run tells of it."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


def test_watch_annotates_shards_as_they_appear_and_ends_cleanly(tmp_path: Path) -> None:
    labels, inbox = tmp_path / "labels.zarr", tmp_path / "inbox"
    inbox.mkdir()
    whole = write_tar(tmp_path / "whole", make_members(3, first=5)).read_bytes()
    write_tar(inbox / "a.tar", make_members(2))
    service = start(labels, inbox / "*.tar", "--watch", *resnet(tmp_path))
    wait_for(lambda: names(labels) == ["a"], service)
    (inbox / "b.tar").write_bytes(whole[:2000])
    write_tar(inbox / "c.tar", make_members(1, first=9))
    wait_for(lambda: names(labels) == ["a", "c"], service)
    (inbox / "b.tar").write_bytes(whole)
    wait_for(lambda: names(labels) == ["a", "b", "c"], service)
    said = said_until(service, "waiting; 6 images")
    service.send_signal(signal.SIGTERM)
    stdout, stderr = service.communicate(timeout=60)
    assert service.returncode == 0, stderr
    assert f"{labels}: 3 shards annotated, 0 were there already, 0 failed; 6 images" in stdout
    assert f"not complete yet, or damaged: {inbox / 'b.tar'}: ends at byte 2000" in said
    assert "Traceback" not in said + stderr


def test_shard_of_too_many_bad_images_keeps_no_other_waiting(tmp_path: Path) -> None:
    labels, inbox = tmp_path / "labels.zarr", tmp_path / "inbox"
    inbox.mkdir()
    write_tar(inbox / "a.tar", [(f"{i}.jpg", b"nothing") for i in range(4)])
    for i, name in enumerate("bc"):
        write_tar(inbox / f"{name}.tar", make_members(2, first=10 * i))
    service = start(labels, inbox / "*.tar", "--watch", "--max-bad", "2", *resnet(tmp_path))
    said_until(service, "shard 3")
    service.send_signal(signal.SIGTERM)
    stdout, stderr = service.communicate(timeout=60)
    assert service.returncode == 1, stderr
    assert names(labels) == ["b", "c"]
    assert "2 shards annotated, 0 were there already, 1 failed" in stdout
    assert "already 3 of its 4 images are undecodable, --max-bad allows 2" in stdout


@pytest.mark.parametrize("more", [["--max-bad", "2"], ["--max-bad", "9", "--teacher-arg", "seconds=text"]])
def test_run_that_fails_ends_with_its_error_and_leaves_no_process(tmp_path: Path, more: list[str]) -> None:
    write_tar(tmp_path / "a.tar", [(f"{i:02}.jpg", b"nothing") for i in range(60)])
    process = start(tmp_path / "labels.zarr", tmp_path / "a.tar", *SLOW, "--workers", "2", *more)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in stderr
    deadline = time.monotonic() + 10
    while (left := group_of(process)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_file_of_a_modules_name_in_the_current_folder_is_not_run(tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "teacher.safetensors")
    write_tar(tmp_path / "a.tar", make_members(3))
    for name in ("numpy", "queue", "store"):
        (tmp_path / f"{name}.py").write_text("open('was_run', 'w').close()\n")
    program = str(Path(sys.executable).with_name("relabel-annotate"))
    command = [program, "run", "--shards", "a.tar", "--labels", "l.zarr",
               "--teacher", "test_resnet", "--checkpoint", str(weights), "--num-classes", "12",
               "--input-size", "64", "--workers", "1"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was_run").exists()


def test_decoding_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", make_members(40))
    process = start(tmp_path / "labels.zarr", tmp_path / "a.tar", *SLOW, "--workers", "2")

    wait_for(lambda: len(group_of(process)) >= 4, process)  # the run, the server, two workers
    time.sleep(1)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while group_of(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_of(process) == []


@pytest.mark.parametrize("to_all", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sigterm_ends_a_run_without_losing_committed_work(tmp_path: Path, to_all: bool) -> None:
    labels = tmp_path / "labels.zarr"
    for i in range(3):
        write_tar(tmp_path / f"a-{i}.tar", make_members(8, first=8 * i))
    process = start(labels, tmp_path / "a-*.tar", *SLOW)
    wait_for(lambda: names(labels) == ["a-0"], process)
    # systemd signals every process of a service, Kubernetes the first one.
    os.killpg(process.pid, signal.SIGTERM) if to_all else process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert f"interrupted; finished shards are in {labels}, run again to go on" in stderr
    assert "Traceback" not in stderr
    assert "error" not in stderr
    assert set(names(labels)) < {"a-0", "a-1", "a-2"}
    assert not [path for path in labels.with_name("labels.zarr.partial").rglob("*") if path.is_file()]
    again = start(labels, tmp_path / "a-*.tar", *SLOW)
    assert again.wait(timeout=120) == 0, again.communicate()
    assert names(labels) == ["a-0", "a-1", "a-2"]
    again.communicate()


def test_torchrun_shares_the_shards_out(tmp_path: Path) -> None:
    labels = tmp_path / "labels.zarr"
    for i in range(3):
        write_tar(tmp_path / f"a-{i}.tar", make_members(3, first=3 * i))
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", sys.executable)
    process = start(labels, tmp_path / "a-*.tar", *resnet(tmp_path), python=(*torchrun, "-m", "pipelines.annotate"))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "RANK: rank 0 of 2 takes 2 of 3 shards" in stderr
    assert "RANK: rank 1 of 2 takes 1 of 3 shards" in stderr
    assert "2 shards annotated" in stdout
    assert "1 shard annotated" in stdout
    assert names(labels) == ["a-0", "a-1", "a-2"]


def test_two_annotators_that_meet_on_a_shard_both_finish(tmp_path: Path) -> None:
    labels = tmp_path / "labels.zarr"
    for i in range(2):
        write_tar(tmp_path / f"a-{i}.tar", make_members(6, first=6 * i))
    both = [start(labels, tmp_path / "a-*.tar", *SLOW) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    counts = [int(stdout.split(": ")[1].split(" shard")[0]) for stdout, _ in said]
    assert sum(counts) == 2
    assert sum(int(stdout.split("failed; ")[1].split(" image")[0]) for stdout, _ in said) == 12  # none of them twice
    assert names(labels) == ["a-0", "a-1"]
    assert not labels.with_name("labels.zarr.partial").exists()


def test_shard_of_a_killed_annotator_is_taken_over(tmp_path: Path) -> None:
    labels, lease = tmp_path / "labels.zarr", tmp_path / "labels.zarr.partial" / "a-0.lease"
    for i in range(2):
        write_tar(tmp_path / f"a-{i}.tar", make_members(8, first=8 * i))
    first = start(labels, tmp_path / "a-0.tar", *SLOW)
    wait_for(lease.exists, first)
    first.send_signal(signal.SIGSTOP)
    second = start(labels, tmp_path / "a-*.tar", *SLOW)
    said = said_until(second, "waiting for another process, which annotates 1 shard: 'a-0.tar'")
    assert names(labels) == ["a-1"], said  # the free shard came first
    first.kill()
    first.communicate()
    stdout, stderr = second.communicate(timeout=60)
    assert second.returncode == 0, stderr
    assert "2 shards annotated, 0 were there already" in stdout
    assert names(labels) == ["a-0", "a-1"]
    assert not lease.parent.exists()


@pytest.mark.parametrize(
    ("more", "environment", "message"),
    [
        (["--watch", "--overwrite"], {}, "would annotate everything again at each start"),
        (["--watch", "--ray"], {}, "--watch is for one process"),
        (["--watch"], {"RANK": "0", "WORLD_SIZE": "2"}, "--watch is for one process"),
        (["--overwrite"], {"RANK": "0", "WORLD_SIZE": "2"}, "--overwrite is for one process or --ray"),
        (["--actors", "2"], {}, "--actors and --gpus-per-actor need --ray"),
        (["--ray", "--gpus-per-actor", "nan"], {}, "expected a number"),
    ],
)
def test_ways_of_running_that_exclude_each_other_are_usage_errors(
    tmp_path: Path, more: list[str], environment: dict[str, str], message: str
) -> None:
    command = [sys.executable, "-m", "pipelines.annotate", "run", "--shards", str(tmp_path / "*.tar"),
               "--labels", "l.zarr", "--teacher", "x", *more]  # fmt: skip
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=False
    )
    assert result.returncode == 2
    assert message in result.stderr
