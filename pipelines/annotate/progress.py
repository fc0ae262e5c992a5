"""How a run over shards looks, annotating or importing: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from annotator.report import Reporter
from store.shards.remote import Shard
from store.text import counted, printable

if TYPE_CHECKING:
    from annotator.published.exporting import ExportSummary


PLAIN_INTERVAL = 30.0  # seconds between plain lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """What a run is called on the terminal."""

    doing: str
    done: str
    unit: str  # what it makes of every sample


ANNOTATE = Wording(doing="annotate", done="annotated", unit="images")
IMPORT = Wording(doing="import", done="imported", unit="maps")


class ShardProgress(Reporter):
    """A reporter for a run over shards, to be used as a context.

    Args:
        shards: how many there are; None for a service that waits for more.
        wording: what is done to them.
    """

    def __init__(self, shards: int | None, wording: Wording) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.shards, self.unit = shards, wording.unit
        self.images, self.done, self.skips = 0, 0, 0
        self.position = 0.0  # in shards, those that are skipped not counted
        self.start = self.last_line = time.monotonic()
        columns: tuple[ProgressColumn, ...] = (
            TextColumn(wording.doing), BarColumn(), _Speed(self), TimeElapsedColumn(), TextColumn("ETA"),
            TimeRemainingColumn(),
        )  # fmt: skip
        is_plain = shards is None or not self.console.is_terminal
        self.bar = Progress(*columns, console=self.console, disable=is_plain)
        self.task = self.bar.add_task("", total=shards)

    def __enter__(self) -> "ShardProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """Move on by a batch."""
        self.images += images
        self._move(self.done - self.skips + part)
        if self.bar.disable and time.monotonic() - self.last_line > PLAIN_INTERVAL:
            self.line(f"{self.describe()}{self._eta()}")

    def set_aside(self, kept: str) -> None:
        """Say where the old store is."""
        self.line(f"the labels of the other teacher are kept in {kept}")

    def committed(self, shard: Shard, maps: int) -> None:
        """Tell of a finished shard."""
        self.done += 1
        self._move(self.done - self.skips)
        self.line(f"{shard.name}: {counted(maps, 'label map')} written ({self.describe()})")

    def skipped(self, shard: Shard) -> None:
        """Tell of a shard that was done before."""
        self.done, self.skips = self.done + 1, self.skips + 1
        self.bar.update(self.task, total=self._total())
        self.line(f"{shard.name}: labels are there already")

    def failed(self, shard: Shard, reason: str) -> None:
        """Tell of a shard that is left out."""
        self.done, self.skips = self.done + 1, self.skips + 1
        self.bar.update(self.task, total=self._total())
        self.line(f"error: {reason}")

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Tell of an image that could not be decoded."""
        self.line(f"{shard.name}: quarantined {key}: {reason}")

    def describe(self) -> str:
        """Images, speed and shards so far."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        of = "" if self.shards is None else f" of {self.shards:,}"
        return f"{self.images:,} {self.unit}, {self.images / seconds:.1f} {self.unit}/s, shard {self.done:,}{of}"

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.last_line = time.monotonic()
        # Text, not markup: a key may hold brackets, and worse.
        self.console.print(Text(printable(text)), soft_wrap=True)

    def _move(self, position: float) -> None:
        """A commit may come after rows of the next shard; the bar does not go back for it."""
        self.position = max(self.position, position)
        self.bar.update(self.task, completed=self.position)

    def _total(self) -> int | None:
        return None if self.shards is None else self.shards - self.skips

    def _eta(self) -> str:
        total = self._total()
        if total is None:
            return ""
        seconds = (time.monotonic() - self.start) * max(total - self.position, 0) / max(self.position, 1e-6)
        return f", about {seconds / 3600:.1f} h left" if seconds > 3600 else f", about {seconds / 60:.0f} min left"


class _Speed(ProgressColumn):
    def __init__(self, progress: ShardProgress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.describe())


# How an export looks: a progress bar on a terminal, its failures, a summary at the end.


class ExportProgress:
    """A reporter for `annotator.published.exporting`, to be used as a context."""

    def __init__(self, rows: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("export"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=rows)

    def __enter__(self) -> "ExportProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def exported(self, rows: int) -> None:
        """Move on."""
        self.bar.update(self.task, advance=rows)

    def failed(self, reason: str) -> None:
        """Tell of what is left out."""
        self.console.print(Text(printable(f"error: {reason}")), soft_wrap=True)


def print_exported(summary: "ExportSummary", folder: Path, seconds: float) -> None:
    """The end of an export, on standard output."""
    out = sys.stdout.write
    out(
        f"{printable(str(folder))}: {summary.written:,} maps written, {summary.size / max(summary.written, 1):,.0f} "
        f"bytes each, {summary.undecodable:,} quarantined images have none; {seconds:.1f} s\n"
    )
    for reason in summary.failures:
        out(f"  not exported: {printable(reason)}\n")
