"""Compares two one-thread actors on a Ray cluster of two cores with twice the rate of one.

python -m benchmarks.speed.ray --shards 'photos/*.tar' --scratch FOLDER --teacher NAME ...
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import click
from ray.cluster_utils import Cluster

from annotator.report import Summary
from annotator.run.ray_cluster import annotate_on_ray
from annotator.settings import ClusterSettings, Job, RunSettings, TeacherSettings
from benchmarks.measure import ratios, table
from benchmarks.stores import copy_shards
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import LocalPath, shards_option
from store.shards.patterns import expand_shards


def run_cluster(job: Job, shards: Sequence[Path], address: str, actors: int) -> float:
    """Images a second, counted from when the first teacher is ready."""
    summary, start = Summary(), 0.0

    def listen(line: str) -> None:
        nonlocal start
        if line.startswith("self-test passed"):
            start = time.perf_counter()

    annotate_on_ray(shards, job, ClusterSettings(address=address, actors=actors), summary, listen)
    assert start, "the run did not say when its first teacher was ready"
    seconds = time.perf_counter() - start
    shutil.rmtree(job.labels)
    return summary.images / seconds


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@click.option("--scratch", type=LocalPath(), required=True, help="A folder to create and remove.")
@teacher_options
@click.option("--batch-size", default=16, show_default=True)
@click.option("--copies", "count", default=16, show_default=True, help="Shards to annotate: copies of the given ones.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1))
def main(
    patterns: tuple[str, ...], scratch: Path, teacher: TeacherSettings, batch_size: int, count: int, runs: int
) -> None:
    """Time one and two actors, each of which decodes in its own thread."""
    scratch.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        shards = copy_shards(expand_shards(patterns), scratch.absolute() / "copies", count)
        job = Job(
            labels=scratch.absolute() / "labels.zarr",
            teacher=teacher,
            settings=RunSettings(batch_size=batch_size, workers=0),
            class_names=None,
        )
        # Each actor is a new process on a new connection, so that no round warms the next one up.
        rates = [[run_cluster(job, shards, cluster.address, actors) for actors in (1, 2)] for _ in range(runs)]
    finally:
        cluster.shutdown()
        shutil.rmtree(scratch)
    one, two = zip(*rates, strict=True)
    table("on a Ray cluster of two CPUs", {
        "one actor: images/s": one,
        "two actors: images/s": two,
        "two actors / twice one": ratios(two, [2 * rate for rate in one]),
    })  # fmt: skip


if __name__ == "__main__":
    main()
