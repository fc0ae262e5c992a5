"""Progress of `relabel-annotate run`, `import` and `export`: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from annotator.report import Reporter
from store.cli.progress import ProgressDisplay
from store.shards.index import shard_name
from store.shards.remote import Shard
from store.text import counted, first_few

PLAIN_INTERVAL = 30.0  # seconds between lines where there is no bar


@dataclass(frozen=True, kw_only=True, slots=True)
class RunText:
    """Words for a run over shards on the terminal."""

    verb: str
    done: str  # its participle
    unit: str  # counted for every sample


ANNOTATE = RunText(verb="annotate", done="annotated", unit="images")
IMPORT = RunText(verb="import", done="imported", unit="maps")


class ShardProgress(Reporter):
    """A reporter for a run over shards, to be used as a context.

    Args:
        shards: number of shards; None for a service that waits for more.
        text: the words for what is done to them.
        check: says what speaks against a group, by its name; asked for the first one alone.
    """

    def __init__(
        self, shards: int | None, text: RunText, *, check: Callable[[str], Iterable[str]] | None = None
    ) -> None:
        self.check = check
        self.display = ProgressDisplay(text.verb, shards, bar=shards is not None)
        self.shards, self.unit = shards, text.unit
        self.images, self.done, self.left_out = 0, 0, 0  # left out: skipped or failed shards, which take no time
        self.position = 0.0  # in shards that were not left out
        self.start = self.last_line = time.monotonic()

    def __enter__(self) -> "ShardProgress":
        self._move(0.0)  # the bar's first text
        self.display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.display.__exit__()

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """Move on by a batch."""
        self.images += images
        self._move(self.done - self.left_out + part)
        if not self.display.has_bar and time.monotonic() - self.last_line > PLAIN_INTERVAL:
            self.line(f"{self.describe()}{self._eta()}")

    def set_aside(self, kept: str) -> None:
        """Print the path of the old store."""
        self.line(f"the labels of the other teacher are kept in {kept}")

    def notice(self, text: str) -> None:
        """Print it."""
        self.line(text)

    def committed(self, shard: Shard, maps: int) -> None:
        """Print a finished shard."""
        self.done += 1
        self._move(self.done - self.left_out)
        self.line(f"{shard.name}: {counted(maps, 'label map')} written ({self.describe()})")
        check, self.check = self.check, None
        for notice in check(shard_name(shard)) if check is not None else ():
            self.line(f"warning: {notice}")

    def skipped(self, shard: Shard) -> None:
        """Print a shard that was done before."""
        self._leave_out(f"{shard.name}: labels are there already")

    def failed(self, shard: Shard, reason: str) -> None:
        """Print why a shard is left out."""
        self._leave_out(f"error: {reason}")

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Print why an image could not be decoded."""
        self.line(f"{shard.name}: undecodable image {key}: {reason}")

    def waiting_for_others(self, shards: Sequence[Shard]) -> None:
        """Print the shards that are left to other processes."""
        names = first_few([shard.name for shard in shards])
        self.line(f"waiting for another process, which annotates {counted(len(shards), 'shard')}: {names}")

    def describe(self) -> str:
        """Images, speed and shards so far."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        of = "" if self.shards is None else f" of {self.shards:,}"
        return f"{self.images:,} {self.unit}, {self.images / seconds:.1f} {self.unit}/s, shard {self.done:,}{of}"

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.last_line = time.monotonic()
        self.display.line(text)

    def _leave_out(self, line: str) -> None:
        self.done, self.left_out = self.done + 1, self.left_out + 1
        self._move(self.position)
        self.line(line)

    def _move(self, position: float) -> None:
        # A commit may come after rows of the next shard; the bar does not go back for it.
        self.position = max(self.position, position)
        self.display.update(self.position, total=self._total(), text=self.describe())

    def _total(self) -> int | None:
        return None if self.shards is None else self.shards - self.left_out

    def _eta(self) -> str:
        total = self._total()
        if total is None:
            return ""
        seconds = (time.monotonic() - self.start) * max(total - self.position, 0) / max(self.position, 1e-6)
        return f", about {seconds / 3600:.1f} h left" if seconds > 3600 else f", about {seconds / 60:.0f} min left"


class ExportProgress:
    """A reporter for `annotator.published.exporting`, to be used as a context."""

    def __init__(self, rows: int) -> None:
        self.display, self.rows = ProgressDisplay("export", rows), 0

    def __enter__(self) -> "ExportProgress":
        self.display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.display.__exit__()

    def exported(self, rows: int) -> None:
        """Move on by so many rows."""
        self.rows += rows
        self.display.update(self.rows)

    def failed(self, reason: str) -> None:
        """Print why rows or a group are left out."""
        self.display.line(f"error: {reason}")
