"""Progress of a command: a bar on standard error where that is a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from store.text import printable

T = TypeVar("T")


class ProgressDisplay:
    """A bar and lines above it, to be used as a context. The bar shows once its total is known, and goes at the end.

    No error of writing ends the work: the terminal may be closed, the disk of a log file full.

    Whether standard error is a terminal is asked of the stream itself: FORCE_COLOR must not put a bar into a log file.

    Args:
        description: what is being done, left of the bar.
        total: units of work; None if it is not known yet.
        bar: False for lines only, also on a terminal.
        silent: writes nothing at all, as ranks other than 0 should.
    """

    def __init__(self, description: str, total: float | None = None, *, bar: bool = True, silent: bool = False) -> None:
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._console = Console(stderr=True, highlight=False, force_terminal=is_terminal, quiet=silent)
        self.has_bar = bar and not silent and is_terminal and not self._console.is_dumb_terminal
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self.has_bar)
        text = "" if total is None else f"0/{total:,.0f}"
        self._task = self._progress.add_task(description, total=total, text=text)

    def __enter__(self) -> "ProgressDisplay":
        with suppress(OSError):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._progress.stop()

    def update(
        self, completed: float, *, total: float | None = None, description: str | None = None, text: str | None = None
    ) -> None:
        """Move the bar.

        Args:
            completed: units of work done.
            total: of all work, where it has changed.
            description: what is being done, where it has changed.
            text: right of the bar. Default: completed/total.
        """
        with suppress(OSError):
            self._progress.update(self._task, completed=completed, total=total, description=description)
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, text=f"{completed:,.0f}/{task.total or 0:,.0f}" if text is None else text)
            self._start()

    def line(self, text: str) -> None:
        """Print a line that stays, above the bar where there is one."""
        # Text, not markup, and printable: a key may hold brackets and control characters.
        with suppress(OSError):
            self._console.print(Text(printable(text)), soft_wrap=True)

    def _start(self) -> None:
        if self._progress.tasks[self._task].total is not None:
            self._progress.start()  # does nothing where it has started, or there is no bar


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items with a bar, if standard error is a terminal; `total` is the number of items without a length."""
    with ProgressDisplay(description, len(items) if isinstance(items, Sized) else total) as display:
        for count, item in enumerate(items, 1):
            yield item
            display.update(count)
