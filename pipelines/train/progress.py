"""Progress of training and evaluation: a bar on a terminal, plain lines elsewhere."""

import time

from store.cli.progress import ProgressDisplay
from store.text import counted
from trainer.run.records import EpochReport, StepReport

SHOWN_LEFT_OUT = 5  # images that could not be decoded in an epoch
TENTHS = 10  # an evaluation prints a line for every tenth where there is no bar


class TrainProgress:
    """A reporter for `trainer.run.loop.train`, to be used as a context; it writes to standard error."""

    def __init__(self) -> None:
        self._display = ProgressDisplay("training")

    def __enter__(self) -> "TrainProgress":
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.__exit__()

    def step(self, report: StepReport) -> None:
        """Move the bar, or print a line."""
        epoch, rate = f"epoch {report.epoch}/{report.epochs}", f"{report.images_per_second:,.0f} images/s"
        if self._display.has_bar:
            self._display.update(
                report.step,
                total=report.steps,
                description=epoch,
                text=f"{report.step}/{report.steps}  loss {report.loss:.3f}  {rate}  {report.waiting:.0%} waiting",
            )
        else:
            self._display.line(
                f"{epoch} step {report.step}/{report.steps}: loss {report.loss:.4f}, lr {report.lr:.4g}, {rate}, "
                f"{report.waiting:.0%} waiting for data"
            )

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch's result, which stays."""
        line = f"epoch {report.epoch}/{report.epochs}: loss {report.loss:.4f}, {report.seconds:.1f} s"
        if report.accuracy is not None:
            line += f", top-1 {report.accuracy.top1:.2%}, top-5 {report.accuracy.top5:.2%}"
        self._display.line(line + (" (best so far)" if report.is_best else ""))
        if report.left_out:
            self.note(f"{counted(len(report.left_out), 'image')} could not be decoded in this epoch and were left out:")
        for problem in report.left_out[:SHOWN_LEFT_OUT]:
            self._display.line(f"  {problem}")
        if (more := len(report.left_out) - SHOWN_LEFT_OUT) > 0:
            self._display.line(f"  and {more:,} more, in metrics.jsonl")

    def note(self, text: str) -> None:
        """Print the line."""
        self._display.line(f"note: {text}")


class EvaluateProgress:
    """Called with the images done and their total; to be used as a context. It writes to standard error."""

    def __init__(self, *, silent: bool = False) -> None:
        self._display = ProgressDisplay("evaluating", silent=silent)
        self._tenth, self._started = 0, time.monotonic()

    def __enter__(self) -> "EvaluateProgress":
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.__exit__()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, or print a line where another tenth is done."""
        self._display.update(done, total=total)
        if not self._display.has_bar and (tenth := done * TENTHS // total) > self._tenth:
            self._tenth = tenth
            rate = done / max(time.monotonic() - self._started, 1e-9)
            self._display.line(f"{done:,} of {total:,} images, {rate:,.0f} images/s")
