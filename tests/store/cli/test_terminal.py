"""Commands whose terminal is closed while they work."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.paths import ROOT

WORK = """
import os, sys, time
from pathlib import Path

import click

from store.cli.base import Command
from store.cli.progress import ProgressDisplay

@click.command(cls=Command)
def work():
    ended = "by an error"
    try:
        with ProgressDisplay("work", 3) as display:
            click.echo("working")
            deadline = time.monotonic() + 30
            while os.isatty(2) and time.monotonic() < deadline:
                time.sleep(0.01)
            for i in range(3):
                display.update(i)
                display.line("a line")
                time.sleep(0.2)  # the bar is drawn by a thread, too
        click.echo("more", err=True)
        click.echo("summary")
        ended = "well"
    except SystemExit:
        ended = "by a signal"
        raise
    finally:
        Path(sys.argv.pop()).write_text(ended)

work([])
"""


def end_of(work: str, ended: Path, begin: Callable[[], object]) -> str:
    """How a program ends in a terminal that is closed once it works; `begin` runs in its process first."""

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        begin()

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", work, str(ended)], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT,
        env=os.environ | {"TERM": "xterm"}, start_new_session=True, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while b"working" not in shown:
        shown += os.read(leader, 1 << 16)
    os.close(leader)
    status = process.wait(timeout=60)
    return f"{ended.read_text()}, {status}"


def ignore_hangup() -> None:
    """As nohup and `trap '' HUP` do."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_work_that_ignores_sighup_outlives_its_terminal(tmp_path: Path) -> None:
    assert end_of(WORK, tmp_path / "ended", ignore_hangup) == "well, 0"


def test_progress_alone_outlives_its_terminal(tmp_path: Path) -> None:
    """As in a script that uses the library."""
    work = (
        WORK.replace("cls=Command", "").replace('click.echo("more", err=True)', "").replace('click.echo("summary")', "")
    )
    assert end_of(work, tmp_path / "ended", ignore_hangup) == "well, 0"


def test_a_closed_terminal_ends_other_work_with_its_clean_up(tmp_path: Path) -> None:
    assert end_of(WORK, tmp_path / "ended", lambda: None) == "by a signal, 129"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_progress_in_a_full_log_file_does_not_end_the_work(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    work = WORK.replace("os.isatty(2)", "False").replace('click.echo("more", err=True)', "")
    with Path("/dev/full").open("w") as full:
        subprocess.run([sys.executable, "-c", work, str(ended)], stderr=full, cwd=ROOT, check=False)
    assert ended.read_text() == "well"
