"""Files are replaced as a whole, by one process at a time, and never through a link."""

import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from store.errors import FileWriteError, RunFolderError, StoreWriteError
from store.files import check_outputs, open_output, partial_file, write_atomically
from store.system.signals import Terminated


def test_file_is_the_old_one_until_the_block_ends(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with write_atomically(file) as handle:
        handle.write(b"new")
        handle.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with pytest.raises(error), write_atomically(file) as handle:  # noqa: PT012
        handle.write(b"new")
        raise error
    assert (os.listdir(tmp_path), file.read_bytes()) == (["a"], b"old")


@pytest.mark.parametrize("error", [Terminated, KeyboardInterrupt])
def test_signal_while_the_temporary_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    opened = Path.open

    def open_and_die(path: Path, mode: str) -> Any:
        opened(path, mode).close()
        raise error

    monkeypatch.setattr(Path, "open", open_and_die)
    with pytest.raises(error), write_atomically(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_loop_of_links_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(StoreWriteError, match="a: is a loop of symbolic links"):
        check_outputs([tmp_path / "a"])


def test_descriptor_is_written_to_where_it_is(tmp_path: Path) -> None:
    """As /dev/stdout is where the shell has redirected it."""
    file = tmp_path / "redirected"
    with file.open("wb") as out:
        out.write(b"before ")
        out.flush()
        (tmp_path / "link").symlink_to(f"/dev/fd/{out.fileno()}")
        for output in (Path(f"/proc/self/fd/{out.fileno()}"), tmp_path / "link"):
            check_outputs([output])
            with open_output(output) as handle:
                handle.write(b"output ")
        out.write(b"after")
        assert os.path.samestat(os.fstat(out.fileno()), file.stat())
    assert file.read_bytes() == b"before output output after"
    assert (tmp_path / "link").is_symlink()


def test_device_is_written_to_and_stays(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to(os.devnull)
    for output in (Path(os.devnull), tmp_path / "nothing"):
        check_outputs([output])
        with open_output(output) as handle:
            handle.write(b"lost")
    assert Path(os.devnull).is_char_device()


def test_closed_descriptor_is_one_clear_error() -> None:
    with pytest.raises(FileWriteError, match="/dev/fd/999: cannot be written: Bad file desc"):
        open_output(Path("/dev/fd/999")).__enter__()


def test_permissions_of_the_old_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch(0o640)
    with write_atomically(file) as handle:
        handle.write(b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_link_is_replaced_and_a_planted_temporary_one_is_not_followed(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "a"
    victim.write_bytes(b"kept")
    file.symlink_to(victim)
    partial_file(file).symlink_to(victim)
    with write_atomically(file) as handle:
        handle.write(b"new")
    assert (victim.read_bytes(), file.is_symlink(), file.read_bytes()) == (b"kept", False, b"new")


def test_of_two_writers_at_once_one_gets_an_error_and_the_other_a_complete_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    with pytest.raises(FileWriteError, match=r"a: cannot be written: another"), write_atomically(file) as first:  # noqa: PT012
        first.write(b"first")
        with write_atomically(file) as second:
            second.write(b"second")
    assert (os.listdir(tmp_path), file.read_bytes()) == (["a"], b"second")


def test_disk_that_refuses_is_an_error_of_stores_and_runs(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match=r"no/a: cannot be written: No such file") as info:
        write_atomically(tmp_path / "no" / "a").__enter__()
    assert isinstance(info.value, StoreWriteError)
    assert isinstance(info.value, RunFolderError)


def test_errors_of_other_files_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), write_atomically(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert not list(tmp_path.iterdir())


def test_own_signal_handlers_stay_and_other_threads_set_none(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with write_atomically(tmp_path / "a"):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)

    def write() -> None:
        with write_atomically(tmp_path / "b"):
            pass

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
