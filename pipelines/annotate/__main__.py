"""The command `relabel-annotate`: image shards and a teacher in, a label store out."""

if __name__ == "__main__":  # before the other imports, which take long enough for a Ctrl-C
    from pipelines.start import start

    start("pipelines.annotate.__main__")

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from annotator.run.ranks import find_rank
from annotator.settings import BadLimit, ClusterSettings, Job, RunSettings, TeacherSettings
from pipelines.annotate.pack import pack_command
from pipelines.annotate.published import export_command, import_command
from pipelines.annotate.refresh import refresh_command
from pipelines.annotate.run import annotate_on_cluster, annotate_shards, watch_shards
from pipelines.annotate.status import status_command
from pipelines.options import (
    class_names_option,
    parse_bad_limit,
    read_class_names,
    sources_option,
    store_option,
    teacher_options,
)
from store.cli.base import CONTEXT, Commands, examples, refuse_nan
from store.shards.patterns import expand_sources
from store.shards.remote import Shard


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="relabel")
def main() -> None:
    """Relabel image shards with a teacher: a top-5 label map for every image, in a label store.

    Exit status: 0 all shards are done; 1 an error, or some shards failed; 2 wrong usage.
    """


@click.command(
    epilog=examples(
        "relabel-annotate run --shards 'train-{0000..1023}.tar' \\\n"
        "    --labels labels.zarr --teacher resnet50.a1_in1k --workers 8"
    )
)
@sources_option
@store_option
@teacher_options
@class_names_option
@click.option(
    "--top-k",
    type=click.IntRange(1, 65_535),
    default=5,
    show_default=True,
    metavar="K",
    help="Classes kept in each cell, or all if the teacher has fewer.",
)
@click.option(
    "--score-step",
    type=click.FloatRange(0, min_open=True),
    callback=refuse_nan,
    metavar="S",
    help="Round scores to multiples of S, a power of two such as 0.25: a smaller store; docs/explanation.md has the "
    "bytes and the effect on targets. Default: lossless.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 65_536),
    default=32,
    show_default=True,
    metavar="N",
    help="Images in one forward pass of the teacher; lower it if the device runs out of memory.",
)
@click.option("--workers", type=click.IntRange(0, 1_024), default=2, show_default=True, metavar="N",
              help="Processes that read and decode images; 0 decodes in the main process.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Annotate these shards again even if they have labels.")
@click.option(
    "--max-bad",
    callback=parse_bad_limit,
    default="100",
    show_default=True,
    metavar="N|N%",
    help="Undecodable images are left out and named. A shard with more than N of them, or more than N% of its images, "
    "fails; the others finish.",
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Annotate on a Ray cluster, by default the one of RAY_ADDRESS or of this machine, or a new one on this "
    "machine for this run. Shards, labels and checkpoint must have the same paths or URLs on every node.",
)
@click.option("--actors", type=click.IntRange(1), metavar="N",
              help="With --ray: number of teachers. Default: one for each GPU, or 1.")  # fmt: skip
@click.option("--gpus-per-actor", type=click.FloatRange(0, 64), callback=refuse_nan, metavar="X",
              help="With --ray: GPUs of each teacher, or a fraction. Default: 1 if the cluster has any.")  # fmt: skip
@click.option(
    "--watch",
    is_flag=True,
    help="Keep running and annotate shards as they appear, once they are complete; SIGTERM, SIGHUP or Ctrl-C ends it.",
)
def run(
    patterns: tuple[str, ...],
    labels: str,
    teacher: TeacherSettings,
    class_names: Path | None,
    top_k: int,
    score_step: float | None,
    batch_size: int,
    workers: int,
    overwrite: bool,
    max_bad: BadLimit,
    ray_address: str | None,
    actors: int | None,
    gpus_per_actor: float | None,
    watch: bool,
) -> None:
    """Annotate every shard that has no labels yet.

    Run it again after an interruption: finished shards are skipped. A damaged shard is reported and left out, and the
    others finish.

    Under torchrun, srun or in a SLURM array each process annotates a part of the shards.

    Exit status: 0 all shards are done; 1 an error, or some shards failed; 2 wrong usage; 143 ended by SIGTERM, 129 by
    SIGHUP.
    """
    if watch and overwrite:
        raise click.UsageError("--overwrite with --watch would annotate everything again at each start of the service")
    if overwrite and ray_address is None and find_rank(os.environ) is not None:
        raise click.UsageError("--overwrite is for one process or --ray; with several processes, choose new --labels")
    if watch and (ray_address is not None or find_rank(os.environ) is not None):
        raise click.UsageError("--watch is for one process; start one service for each pattern instead")
    if ray_address is None and (actors is not None or gpus_per_actor is not None):
        raise click.UsageError("--actors and --gpus-per-actor need --ray")
    names = None if class_names is None else read_class_names(class_names)
    settings = RunSettings(
        top_k=top_k, score_step=score_step, batch_size=batch_size, workers=workers, max_bad=max_bad, overwrite=overwrite
    )  # fmt: skip
    job = Job(labels=labels, teacher=teacher, settings=settings, class_names=names)
    if watch:
        watch_shards(patterns, job)
        return
    shards = expand_sources(patterns)
    if ray_address is not None:
        cluster = ClusterSettings(address=ray_address or None, actors=actors, gpus_per_actor=gpus_per_actor)
        annotate_on_cluster(shards, job, cluster)
        return
    annotate_shards(*assigned_shards(shards, job, os.environ))


def assigned_shards(shards: Sequence[Shard], job: Job, environment: Mapping[str, str]) -> tuple[Sequence[Shard], Job]:
    """The shards and the job of this process: all shards where it runs alone, else those of its rank.

    Raises:
        SettingsError: inconsistent ranks in the environment.
    """
    rank = find_rank(environment)
    if rank is None:
        return shards, job
    assigned = rank.assigned(shards)
    click.echo(
        f"{rank.by}: rank {rank.rank} of {rank.world} takes {len(assigned):,} of {len(shards):,} shards", err=True
    )
    return assigned, replace(job, teacher=replace(job.teacher, local_rank=rank.local))


for command in (run, pack_command, status_command, refresh_command, import_command, export_command):
    main.add_command(command)
