"""A run over shards from its first line to its summary, however it ends."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from annotator.report import Summary
from pipelines.agreement import doubt_numbering
from pipelines.annotate.progress import ShardProgress, Wording
from store.errors import FailedShardsError
from store.shards import shard_name
from store.text import counted, printable

SHOWN_BAD_IMAGES = 20


def run_shards(
    work: Callable[[Summary, ShardProgress], None], shards: int | None, labels: Path | str, wording: Wording
) -> None:
    """Do the work with progress on the terminal, then print what became of the shards.

    Args:
        work: what to do; it tells the summary what it has done.
        shards: how many there are; None for a service, which a SIGTERM ends as it should.
        labels: the store, for messages.
        wording: what is done.

    Raises:
        FailedShardsError: some were left out, each named before.
    """
    start = time.monotonic()
    with ShardProgress(shards, wording) as progress, _ended_by_sigterm():
        summary = Summary(progress)
        try:
            work(summary, progress)
        except (KeyboardInterrupt, SystemExit):
            if shards is not None:
                done = summary.committed_shards + summary.skipped_shards
                kept = f"finished shards are in {printable(str(labels))}" if done else "no shard was finished"
                if sys.stderr is not None:
                    sys.stderr.write(f"interrupted; {kept}, run again to go on\n")
                raise
    _print_summary(summary, labels, wording, time.monotonic() - start)
    if summary.failures:
        of = "" if shards is None else f" of {shards:,}"
        raise FailedShardsError(f"{len(summary.failures)}{of} shards failed; mend them and run again")


class Terminated(SystemExit):
    """By a signal, and not by somebody's call of `sys.exit`."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM ends the run as Ctrl-C does: what is being committed is finished. A second one ends it at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_summary(summary: Summary, labels: Path | str, wording: Wording, seconds: float) -> None:
    """The end of a run, on standard output."""
    out = sys.stdout.write
    out(
        f"{printable(str(labels))}: {counted(summary.committed_shards, 'shard')} {wording.done}, "
        f"{summary.skipped_shards:,} were there already, {len(summary.failures):,} failed; "
        f"{summary.images:,} {wording.unit} in {seconds:.1f} s\n"
    )
    if summary.computing.seconds:
        out(f"  {summary.computing.seconds:.1f} s in the teacher, {summary.waiting.seconds:.1f} s waiting for data\n")
    for reason in summary.failures.values():
        out(f"  failed: {printable(reason)}\n")
    for shard, key, reason in summary.bad_images[:SHOWN_BAD_IMAGES]:
        out(f"  quarantined: {printable(f'{shard.name}: {key}: {reason}')}\n")
    if len(summary.bad_images) > SHOWN_BAD_IMAGES:
        out(f"  and {len(summary.bad_images) - SHOWN_BAD_IMAGES:,} more quarantined images\n")
    if summary.last_committed and (doubt := doubt_numbering(labels, shard_name(summary.last_committed))):
        out(f"  {doubt}\n")
