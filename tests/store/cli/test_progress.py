"""Progress on a real terminal, in a pipe, and in a log file of a job that forces colours."""

import os
import pty
import subprocess
import sys

import pytest

from store.cli.progress import ProgressDisplay, track
from tests.builders.paths import ROOT

WORK = """
import time
from store.cli.progress import ProgressDisplay, track
for _ in track(range(4), "groups"):
    time.sleep(0.1)
with ProgressDisplay("work") as display:
    display.line("[red]key\\x1b[2J of " + "a long line " * 20)
    display.update(3, total=4, text="loss 1.5")
    time.sleep(0.2)
"""


def on_a_terminal(**environment: str) -> str:
    """Standard error of WORK, as a terminal receives it."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WORK], stderr=follower, cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | environment,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 1 << 16):
            shown += part
    except OSError:  # Linux's end of file, once the process has closed the terminal
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return shown.decode()


def test_a_terminal_gets_bars_and_lines_above_them() -> None:
    shown = on_a_terminal()
    for expected in ("groups", "4/4", "work", "loss 1.5", "━", "[red]key\\x1b[2J of a long line"):
        assert expected in shown
    assert shown.count("\x1b[?25h") == 2  # the cursor comes back after each bar


def test_a_dumb_terminal_gets_lines_alone() -> None:
    shown = on_a_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert shown.startswith("[red]key\\x1b[2J of a long line")


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}])
def test_a_file_gets_one_line_a_message_and_no_animation(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, check=True
    )
    assert done.stdout == ""
    assert done.stderr == "[red]key\\x1b[2J of " + "a long line " * 20 + "\n"


def test_a_silent_display_writes_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressDisplay("work", 10, silent=True) as display:
        display.update(5)
        display.line("half")
    assert capsys.readouterr() == ("", "")


def test_track_yields_every_item_with_or_without_a_length() -> None:
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert list(track((letter for letter in "abc"), "letters", 3)) == ["a", "b", "c"]
