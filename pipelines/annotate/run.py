"""Annotating from the teacher's settings to the last summary: once through given shards, or for ever."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.report import Summary
from annotator.run.watch import Watch, annotate_forever
from annotator.settings import ClusterSettings, Job
from pipelines.annotate.progress import ANNOTATE, ShardProgress
from pipelines.run_shards import run_shards
from store.errors import TooManyBadImagesError
from store.patterns import find_sources
from store.remote import Shard
from store.text import printable

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
