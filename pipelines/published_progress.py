"""How an export looks: a progress bar on a terminal, its failures, a summary at the end."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from store.text import printable

if TYPE_CHECKING:
    from annotator.published.exporting import ExportSummary


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
        f"bytes each, {summary.quarantined:,} quarantined images have none; {seconds:.1f} s\n"
    )
    for reason in summary.failures:
        out(f"  not exported: {printable(reason)}\n")
