"""How a run over shards looks, annotating or importing: a bar on a terminal, plain lines elsewhere, a summary."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from annotator.report import Reporter, Summary
from store.errors import FailedShardsError
from store.text import printable

PLAIN_INTERVAL = 30.0  # seconds between plain lines
SHOWN_BAD_IMAGES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """What a run is called on the terminal."""

    doing: str
    done: str
    unit: str  # what it makes of every sample


ANNOTATE = Wording(doing="annotate", done="annotated", unit="images")
IMPORT = Wording(doing="import", done="imported", unit="maps")


def run_shards(
    work: Callable[[Reporter], Summary], shards: Sequence[Path], labels: Path | str, wording: Wording
) -> None:
    """Do the work with progress on the terminal, then print what became of the shards.

    Raises:
        FailedShardsError: some were left out, each named before.
    """
    start = time.monotonic()
    try:
        with ShardProgress(shards, wording) as progress:
            summary = work(progress)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; finished shards are in {printable(str(labels))}, run again to go on\n")
        raise
    _print_summary(summary, labels, wording, time.monotonic() - start)
    if summary.failures:
        raise FailedShardsError(f"{len(summary.failures)} of {len(shards)} shards failed; mend them and run again")


class ShardProgress:
    """A reporter for a run over shards, to be used as a context."""

    def __init__(self, shards: Sequence[Path], wording: Wording) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.sizes = {path: path.stat().st_size for path in shards}
        self.images, self.bytes, self.done = 0, 0, 0
        self.start = self.last_line = time.monotonic()
        columns: tuple[ProgressColumn, ...] = (
            TextColumn(wording.doing), BarColumn(), _Speed(self), TimeElapsedColumn(), TextColumn("ETA"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=sum(self.sizes.values()))

    def __enter__(self) -> "ShardProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def annotated(self, images: int, path: Path, position: int) -> None:
        """Move on by a batch."""
        self.images += images
        self._move(path, position)
        if self.bar.disable and time.monotonic() - self.last_line > PLAIN_INTERVAL:
            self._line(f"{self.describe()}, {self._eta()}")

    def set_aside(self, kept: str) -> None:
        """Say where the old store is."""
        self._line(f"the labels of the other teacher are kept in {kept}")

    def committed(self, path: Path, rows: int) -> None:
        """Tell of a finished shard."""
        self.done += 1
        self._move(path, self.sizes[path])
        self._line(f"{path.name}: {rows} label maps written ({self.describe()})")

    def skipped(self, path: Path) -> None:
        """Tell of a shard that was done before."""
        self.done += 1
        self.bar.update(self.task, total=self._remaining_total(path))
        self._line(f"{path.name}: labels are there already")

    def failed(self, path: Path, reason: str) -> None:
        """Tell of a shard that is left out."""
        self.done += 1
        self.bar.update(self.task, total=self._remaining_total(path))
        self._line(f"error: {reason}")

    def quarantined(self, path: Path, key: str, reason: str) -> None:
        """Tell of an image that could not be decoded."""
        self._line(f"{path.name}: quarantined {key}: {reason}")

    def describe(self) -> str:
        """Images, speed and shards so far."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        return f"{self.images:,} images, {self.images / seconds:.1f} images/s, shard {self.done} of {len(self.sizes)}"

    def _move(self, path: Path, position: int) -> None:
        """Shards are read in order, so all before this one are behind; a commit may come late."""
        before = takewhile(lambda other: other != path, self.sizes)
        self.bytes = max(self.bytes, sum(self.sizes[other] for other in before) + position)
        self.bar.update(self.task, completed=self.bytes)

    def _remaining_total(self, path: Path) -> int:
        self.sizes[path] = 0
        return sum(self.sizes.values())

    def _eta(self) -> str:
        seconds = time.monotonic() - self.start
        left = max(sum(self.sizes.values()) - self.bytes, 0) / max(self.bytes, 1) * seconds
        return f"about {left / 3600:.1f} h left" if left > 3600 else f"about {left / 60:.0f} min left"

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        # Text, not markup: a key may hold brackets, and worse.
        self.console.print(Text(printable(text)), soft_wrap=True)


class _Speed(ProgressColumn):
    def __init__(self, progress: ShardProgress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.describe())


def _print_summary(summary: Summary, labels: Path | str, wording: Wording, seconds: float) -> None:
    """The end of a run, on standard output."""
    out = sys.stdout.write
    out(
        f"{printable(str(labels))}: {summary.committed_shards} shards {wording.done}, "
        f"{summary.skipped_shards} were there already, {len(summary.failures)} failed; "
        f"{summary.images:,} {wording.unit} in {seconds:.1f} s\n"
    )
    for _, reason in summary.failures:
        out(f"  failed: {printable(reason)}\n")
    for path, key, reason in summary.bad_images[:SHOWN_BAD_IMAGES]:
        out(f"  quarantined: {printable(f'{path.name}: {key}: {reason}')}\n")
    if len(summary.bad_images) > SHOWN_BAD_IMAGES:
        out(f"  and {len(summary.bad_images) - SHOWN_BAD_IMAGES} more quarantined images\n")
