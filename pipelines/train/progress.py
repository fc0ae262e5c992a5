"""Training progress: a bar on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.run.records import EpochReport, StepReport


class TrainProgress:
    """A reporter for `trainer.run.loop.train`, to be used as a context; it writes to standard error."""

    def __init__(self) -> None:
        self._console = console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} images/s  {task.fields[waiting]:.0%} waiting"
            ),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("training", total=None, visible=False, loss=0.0, rate=0.0, waiting=0.0)

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, report: StepReport) -> None:
        """Move the bar, or print a line."""
        if self._console.is_terminal:
            self._bar.update(
                self._task,
                description=f"epoch {report.epoch}/{report.epochs}",
                total=report.steps,
                completed=report.step,
                visible=True,
                loss=report.loss,
                rate=report.images_per_second,
                waiting=report.waiting,
            )
            return
        self._print(
            f"epoch {report.epoch}/{report.epochs} step {report.step}/{report.steps}: loss {report.loss:.4f}, "
            f"lr {report.lr:.4g}, {report.images_per_second:,.0f} images/s, {report.waiting:.0%} waiting for data"
        )

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch's result, which stays."""
        line = f"epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}, {report.seconds:.1f} s"
        if report.accuracy is not None:
            line += f", top-1 {report.accuracy.top1:.2%}, top-5 {report.accuracy.top5:.2%}"
        self._print(line + (" (best so far)" if report.is_best else ""))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


# Progress of an evaluation: a bar on a terminal, a plain line for every tenth elsewhere.


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
