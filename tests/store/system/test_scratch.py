"""Temporary folders: a start removes those of dead processes, and never one that may be in use."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from store.system import scratch
from store.system.scratch import Scratch, remove_abandoned, temporary_scratch
from tests.builders.paths import ROOT

HOLDER = """
import sys
from pathlib import Path
from store.system.scratch import Scratch
folder = Scratch(Path(sys.argv[1]))
(folder.path / "copy.tar").write_bytes(bytes(1000))
print(folder.path, flush=True)
sys.stdin.read()
"""

# Without a main guard's imports: the workers are started from this text, and hold a semaphore and a socket.
WORKERS = """
import multiprocessing, sys
from store.system import processes

if __name__ == "__main__":
    processes.start_server([])
    context = multiprocessing.get_context("forkserver")
    queue = context.Queue()
    worker = context.Process(target=queue.put, args=(1,))
    worker.start()
    assert queue.get(timeout=60) == 1
    print(multiprocessing.process.current_process()._config["tempdir"], flush=True)
    if "wait" in sys.argv:
        sys.stdin.read()
    worker.join()
"""


@contextmanager
def started(script: Path, *arguments: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in a group of its own, and the folder that it prints; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    try:
        output: IO[str] | None = process.stdout
        assert output is not None
        yield process, Path(output.readline().strip())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def holder(tmp_path: Path) -> Path:
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)
    return script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tmp"
    path.mkdir()
    return path


def test_a_start_removes_folders_of_killed_processes_and_keeps_those_of_living_ones(holder: Path, folder: Path) -> None:
    with started(holder, folder) as (_, killed):
        assert (killed / "copy.tar").exists()
    assert (killed / "copy.tar").exists()
    (folder / f"sem.{killed.name}-x").touch()
    with started(holder, folder) as (_, living):
        assert not killed.exists()
        with Scratch(folder) as own:
            assert sorted(folder.iterdir()) == sorted([living, own])
            remove_abandoned(folder)
            assert own.is_dir()
        assert (living / "copy.tar").exists()
        assert list(folder.iterdir()) == [living]


@pytest.mark.parametrize(
    "name", ["relabel-{other}-abcdefgh", "relabel-abcdefgh", "relabel-bench-{boot}", "pymp-abcdefgh", "sem.mp-abcdefgh"]
)
def test_what_another_machine_or_program_may_use_is_kept(folder: Path, name: str) -> None:
    boot = scratch._prefix().split("-")[1]
    kept = folder / name.format(boot=boot, other="0" * 8 if boot != "0" * 8 else "1" * 8)
    kept.mkdir()
    remove_abandoned(folder)
    assert kept.is_dir()


def abandoned(folder: Path) -> Path:
    path = folder / f"{scratch._prefix()}abcdefgh"
    path.mkdir()
    return path


def test_folder_of_another_user_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = abandoned(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    remove_abandoned(folder)
    assert path.is_dir()
    monkeypatch.undo()
    remove_abandoned(folder)
    assert not path.exists()


def test_nothing_is_removed_from_a_disk_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = abandoned(folder)
    with Scratch(folder) as own:
        assert own.is_dir()
    assert path.is_dir()


def test_a_link_in_place_of_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (folder / f"{scratch._prefix()}abcdefgh").symlink_to(tmp_path / "mine")
    remove_abandoned(folder)
    assert (tmp_path / "mine").is_dir()


def test_folder_that_another_start_takes_before_it_is_locked_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tempfile.mkdtemp
    taken: list[str] = []

    def mkdtemp(**options: object) -> str:
        path = right(**options)  # type: ignore[call-overload]
        if len(taken) < 2:
            taken.append(path)
            remove_abandoned(folder) if len(taken) == 1 else handles.append(lock(Path(path)))
        return str(path)

    def lock(path: Path) -> int:
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle

    handles: list[int] = []
    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with Scratch(folder) as own:
        assert own.is_dir()
        assert str(own) not in taken
    os.close(handles[0])


def test_tmpdir_of_this_process_is_where_copies_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with temporary_scratch() as own:
        assert own.parent == folder
    assert list(folder.iterdir()) == []


def left_by(own: Path) -> list[Path]:
    return [*own.parent.glob(own.name), *own.parent.glob(f"sem.{own.name}-*")]


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    return script


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm")
def test_workers_start_under_a_long_tmpdir_and_leave_nothing(workers: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200)
    long.mkdir()
    with started(workers, TMPDIR=str(long)) as (process, own):
        assert process.wait(60) == 0
    assert left_by(own) == list(long.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs /dev/shm")
def test_a_start_of_workers_removes_sockets_and_semaphores_of_a_killed_run(workers: Path) -> None:
    with started(workers, "wait") as (_, killed):
        assert any(path.name.startswith("sem.") for path in left_by(killed))
        with started(workers) as (process, _):
            assert process.wait(60) == 0
        assert list(killed.iterdir())  # in use
    assert left_by(killed)  # the whole group was killed, with the process that tidies up
    with started(workers) as (process, own):
        assert process.wait(60) == 0
        assert left_by(killed) == left_by(own) == []
