"""Annotating from the teacher's settings to the last summary: once through given shards, or for ever."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.report import Summary
from annotator.run.watch import Watch, annotate_forever
from annotator.settings import ClusterSettings, Job
from pipelines.annotate.progress import ANNOTATE, ShardProgress, Wording
from store.errors import FailedShardsError, RelabelError, TooManyBadImagesError
from store.maps.statistics import labels_top1
from store.processes import ended_by_sigterm
from store.reader import LabelStore
from store.shards.index import shard_name
from store.shards.patterns import find_sources
from store.shards.remote import Shard
from store.text import counted, printable

if TYPE_CHECKING:
    from annotator.run.annotate import ReadyTeacher


def annotate_shards(shards: Sequence[Shard], job: Job) -> None:
    """Build and test the teacher, annotate with progress on the terminal, and print what became of the shards.

    Raises:
        RelabelError: of `annotator.run.annotate`, or FailedShardsError when some shards were left out.
    """
    from annotator.run.annotate import annotate, open_labels

    ready = load_teacher(job)

    def work(summary: Summary, _: ShardProgress) -> None:
        open_labels(shards, job.labels, ready.schema, summary, overwrite=job.settings.overwrite)
        annotate(shards, job.labels, ready, job.settings, summary)

    run_shards(work, len(shards), job.labels, ANNOTATE)


def watch_shards(patterns: Sequence[str], job: Job) -> None:
    """The same for whatever appears under the patterns, until a signal ends it.

    Raises:
        RelabelError: as of `annotate_shards`.
    """
    from annotator.run.annotate import annotate, open_labels

    find_sources(patterns)  # a pattern that cannot be right is told before the teacher is loaded
    ready = load_teacher(job)

    def work(summary: Summary, progress: ShardProgress) -> None:
        def annotate_ready(shards: Sequence[Shard]) -> list[Shard]:
            left = list(shards)
            while left:
                try:
                    annotate(left, job.labels, ready, job.settings, summary)
                    break
                except TooManyBadImagesError as error:  # must not end a service: the others go on without this one
                    shard = summary.bad_images[-1][0]
                    summary.failed(shard, str(error))
                    left.remove(shard)
            return [shard for shard in shards if shard in summary.failures]

        open_labels([], job.labels, ready.schema, summary, overwrite=False)
        watch = Watch(partial(find_sources, patterns), progress.line)
        annotate_forever(watch, annotate_ready, lambda: progress.line(f"waiting; {progress.describe()}"))

    run_shards(work, None, job.labels, ANNOTATE)


def annotate_on_cluster(shards: Sequence[Shard], job: Job, cluster: ClusterSettings) -> None:
    """The same by the actors of a Ray cluster.

    Raises:
        RelabelError: as of `annotate_shards`, or where the cluster cannot be reached.
    """
    from annotator.run.ray_cluster import annotate_on_ray

    # An actor's folder is not this one.
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
    """Build a teacher, run its self-test and say what it found; meanwhile the decoding workers get ready.

    Raises:
        TeacherError, SettingsError, LabelMapError: as of `Teacher` and `make_ready`.
    """
    # Imported here, so that --help and a mistyped pattern do not wait for torch.
    from annotator.input.decode import start_server
    from annotator.run.annotate import make_ready
    from annotator.teacher.teacher import Teacher

    click.echo(printable(f"loading the teacher {job.teacher.name}"), err=True)
    if job.settings.workers:
        start_server()
    ready = make_ready(Teacher(job.teacher), job.settings.top_k, job.class_names)
    height, width = ready.schema.map_size
    click.echo(
        f"self-test passed: {height} x {width} cells, {ready.schema.num_classes:,} classes, "
        f"{ready.selftest.describe()}; {ready.teacher.device}",
        err=True,
    )
    return ready


# A run over shards from its first line to its summary, however it ends.


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
    with ShardProgress(shards, wording) as progress, ended_by_sigterm():
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


# A sign that a teacher numbers its classes otherwise than the shards do: nothing else fails when it does.


ROWS = 256  # that are looked at
ENOUGH = 20  # labels; of fewer it may be chance
FEW = 0.5  # share of the labels; even of an unsure teacher most lead in some cell


def doubt_numbering(labels: Path | str, name: str) -> str | None:
    """A line if few of a group's original labels lead in any cell of their map, or it cannot be read; else None."""
    try:
        group = LabelStore.open(labels).group(name)
        stop = min(len(group), ROWS)
        labelled = group.usable(stop=stop) & (group.labels[:stop] >= 0)
        lead = int((labels_top1(group.read(stop=stop, with_tail=False), group.labels[:stop]) & labelled).sum())
    except RelabelError as error:  # the labels are written; the run must not end as one that failed
        return f"what was written cannot be looked at: {printable(str(error))}"
    count = int(labelled.sum())
    if count < ENOUGH or lead >= FEW * count:
        return None
    return (
        f"only {lead:,} of {count:,} labels of {printable(name)} lead in any cell of their map; "
        "does the teacher number its classes as the shards do?"
    )
