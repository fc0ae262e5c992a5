"""Runs of the annotator, from settings to summary: over given shards, on a Ray cluster, or as a service."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from annotator.report import Summary
from annotator.run.watch import Watch, annotate_forever
from annotator.settings import ClusterSettings, Job
from pipelines.annotate.check import check_targets
from pipelines.annotate.progress import ANNOTATE, RunText, ShardProgress
from store.errors import FailedShardsError
from store.shards.index import shard_name
from store.shards.patterns import find_sources
from store.shards.remote import Shard
from store.text import counted, printable

if TYPE_CHECKING:
    from annotator.run.annotate import ReadyTeacher


SHOWN_BAD_IMAGES = 20


def annotate_shards(shards: Sequence[Shard], job: Job) -> None:
    """Build and test the teacher, annotate the shards with progress on the terminal, and print a summary.

    Raises:
        RelabelError: as of `annotator.run.annotate`; FailedShardsError if some shards were left out.
    """
    from annotator.run.annotate import annotate, open_labels

    ready = load_teacher(job)

    def work(summary: Summary, _: ShardProgress) -> None:
        writer = open_labels(
            shards,
            job.labels,
            ready.schema,
            summary,
            overwrite=job.settings.overwrite,
            precision=job.teacher.precision,
        )
        annotate(shards, writer, ready, job.settings, summary)

    run_shards(work, len(shards), job.labels, ANNOTATE)


def watch_shards(patterns: Sequence[str], job: Job) -> None:
    """Annotate shards as they appear under the patterns, until a signal ends the run.

    Raises:
        RelabelError: as of `annotate_shards`.
    """
    from annotator.run.annotate import annotate, open_labels

    find_sources(patterns)  # a malformed pattern is an error before the teacher is loaded
    ready = load_teacher(job)

    def work(summary: Summary, progress: ShardProgress) -> None:
        writer = open_labels([], job.labels, ready.schema, summary, overwrite=False, precision=job.teacher.precision)

        def annotate_complete(shards: Sequence[Shard]) -> list[Shard]:
            annotate(shards, writer, ready, job.settings, summary)
            return [shard for shard in shards if shard in summary.failures]

        watch = Watch(partial(find_sources, patterns), progress.line)
        annotate_forever(watch, annotate_complete, lambda: progress.line(f"waiting; {progress.describe()}"))

    run_shards(work, None, job.labels, ANNOTATE)


def annotate_on_cluster(shards: Sequence[Shard], job: Job, cluster: ClusterSettings) -> None:
    """Annotate the shards with the actors of a Ray cluster.

    Raises:
        RelabelError: as of `annotate_shards`; SettingsError if the cluster cannot be reached.
    """
    from annotator.run.ray_cluster import annotate_on_ray

    # Actors run in another folder, so paths must be absolute.
    shards = [shard.absolute() if isinstance(shard, Path) else shard for shard in shards]
    teacher = (
        job.teacher
        if job.teacher.checkpoint is None
        else replace(job.teacher, checkpoint=job.teacher.checkpoint.absolute())
    )
    labels = job.labels if "://" in str(job.labels) else Path(job.labels).absolute()
    job = replace(job, labels=labels, teacher=teacher)

    def work(summary: Summary, progress: ShardProgress) -> None:
        annotate_on_ray(shards, job, cluster, summary, progress.line)

    run_shards(work, len(shards), job.labels, ANNOTATE)


def load_teacher(job: Job) -> "ReadyTeacher":
    """Build a teacher, run its self-test and print the result; the server of decoding workers starts meanwhile.

    Raises:
        TeacherError, SettingsError, LabelMapError: as of `Teacher` and `make_ready`.
    """
    # Imported here, so that --help and a mistyped pattern do not wait for torch.
    from annotator.input.decode import start_server
    from annotator.run.annotate import load_in_own_process

    click.echo(printable(f"loading the teacher {job.teacher.name}"), err=True)
    if job.settings.workers:
        start_server()
    ready = load_in_own_process(job)
    if ready.teacher.weights_origin:
        click.echo(printable(f"{job.teacher.checkpoint}: took {ready.teacher.weights_origin}"), err=True)
    height, width = ready.schema.map_size
    click.echo(
        f"self-test passed: {height} x {width} cells, {ready.schema.num_classes:,} classes, "
        f"{ready.selftest.describe()}; {ready.teacher.device}",
        err=True,
    )
    if ready.selftest.disagrees:
        click.echo(
            "warning: the cells predict something else than the network; check the maps of some images", err=True
        )
    return ready


def run_shards(
    work: Callable[[Summary, ShardProgress], None], shards: int | None, labels: Path | str, text: RunText
) -> None:
    """Do the work with progress on the terminal, then print a summary; an interrupted run says how to go on.

    Args:
        work: the run itself, which reports to the summary.
        shards: number of shards; None for a service, which ends by SIGTERM.
        labels: the store, for messages.
        text: the words for what is done to the shards.

    Raises:
        FailedShardsError: some shards were left out; the summary names them.
    """
    start = time.monotonic()
    first = partial(check_targets, labels) if shards is None or shards > 1 else None  # of one, the summary says it
    with ShardProgress(shards, text, check=first) as progress:
        summary = Summary(progress)
        try:
            work(summary, progress)
        except (KeyboardInterrupt, SystemExit) as end:
            if shards is not None:
                done = summary.committed_shards + summary.skipped_shards
                kept = f"finished shards are in {printable(str(labels))}" if done else "no shard was finished"
                if sys.stderr is not None:
                    sys.stderr.write(f"interrupted; {kept}, run again to go on\n")
                if isinstance(end, KeyboardInterrupt):
                    sys.exit(1)  # click would add "Aborted!"
                raise
    _print_summary(summary, labels, text, time.monotonic() - start)
    if summary.failures:
        of = "" if shards is None else f" of {shards:,}"
        raise FailedShardsError(f"{len(summary.failures)}{of} shards failed; repair them and run again")


def _print_summary(summary: Summary, labels: Path | str, text: RunText, seconds: float) -> None:
    """Print the summary of a run on standard output."""
    out = sys.stdout.write
    out(
        f"{printable(str(labels))}: {counted(summary.committed_shards, 'shard')} {text.done}, "
        f"{summary.skipped_shards:,} were there already, {len(summary.failures):,} failed; "
        f"{summary.images:,} {text.unit} in {seconds:.1f} s\n"
    )
    if summary.computing.seconds:
        out(f"  {summary.computing.seconds:.1f} s in the teacher, {summary.waiting.seconds:.1f} s waiting for data\n")
    for reason in summary.failures.values():
        out(f"  failed: {printable(reason)}\n")
    for shard, key, reason in summary.bad_images[:SHOWN_BAD_IMAGES]:
        out(f"  undecodable: {printable(f'{shard.name}: {key}: {reason}')}\n")
    if len(summary.bad_images) > SHOWN_BAD_IMAGES:
        out(f"  and {len(summary.bad_images) - SHOWN_BAD_IMAGES:,} more undecodable images\n")
    if summary.changes:
        changes = np.concatenate(summary.changes)
        out(
            f"  rounded scores change a probability of a whole image's target by {changes.mean():.4f} on average, "
            f"{changes.max():.4f} at most ({counted(len(changes), 'image')} measured)\n"
        )
    if summary.last_committed:
        for notice in check_targets(labels, shard_name(summary.last_committed)):
            out(f"  warning: {printable(notice)}\n")
