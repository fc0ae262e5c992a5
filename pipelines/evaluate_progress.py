"""Progress of an evaluation: a bar on a terminal, a plain line for every tenth elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

TENTHS = 10


class EvaluateProgress:
    """Told of images done; to be used as a context. It writes to standard error, or nothing where it is silent."""

    def __init__(self, *, silent: bool = False) -> None:
        self._console = console = Console(stderr=True, highlight=False)
        self._shows_bar, self._shows_lines = console.is_terminal and not silent, not console.is_terminal and not silent
        columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._shows_bar)
        self._task = self._bar.add_task("", total=None, visible=False)
        self._tenth, self._started = 0, time.monotonic()

    def __enter__(self) -> "EvaluateProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, or print a line where another tenth is done."""
        if self._shows_bar:
            self._bar.update(self._task, total=total, completed=done, visible=True)
        elif self._shows_lines and (tenth := done * TENTHS // total) > self._tenth:
            self._tenth = tenth
            rate = done / max(time.monotonic() - self._started, 1e-9)
            self._console.print(f"{done:,} of {total:,} images, {rate:,.0f} images/s", markup=False, soft_wrap=True)
