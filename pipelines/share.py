"""One process's share of a run that torchrun or SLURM has spread over several."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import click

from annotator.run.ranks import find_rank
from annotator.settings import Job
from store.remote import Shard


def own_share(shards: Sequence[Shard], job: Job, environment: Mapping[str, str]) -> tuple[Sequence[Shard], Job]:
    """The shards and the job of this process: all of them where it runs alone.

    Raises:
        SettingsError: the environment's ranks do not fit together.
    """
    rank = find_rank(environment)
    if rank is None:
        return shards, job
    share = rank.share(shards)
    click.echo(f"{rank.by}: rank {rank.rank} of {rank.world} takes {len(share):,} of {len(shards):,} shards", err=True)
    return share, replace(job, teacher=replace(job.teacher, local_rank=rank.local))
