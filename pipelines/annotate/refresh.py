"""The command `relabel-annotate refresh`: takes over corrected labels from the image shards, without the teacher."""

from collections import Counter

import click

from annotator.input.local_copies import LocalCopies
from annotator.run.refresh import Refreshed, refresh_shard
from pipelines.options import sources_option
from store.cli.base import examples
from store.cli.options import labels_argument
from store.cli.progress import track
from store.errors import FailedShardsError
from store.reader import LabelStore
from store.shards.patterns import expand_sources
from store.text import counted, printable
from store.writer import StoreWriter


@click.command("refresh", epilog=examples("relabel-annotate refresh labels.zarr --shards 'train-{0000..1023}.tar'"))
@labels_argument
@sources_option
def refresh_command(labels: str, patterns: tuple[str, ...]) -> None:
    """Take over corrected labels from shards, without the teacher.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. A shard whose size or time differs from
    the recorded ones is read; if every image is the one that was annotated, its group is written anew with the shard's
    present labels (.cls), keys, places of the images and time, and the same label maps. A shard with other images is
    refused: annotate it again.

    Exit status: 0 the labels are those of the shards; 1 an error, or some shards were refused; 2 wrong usage.
    """
    shards = expand_sources(patterns)
    store = LabelStore.open(labels)
    writer = StoreWriter.open(labels, store.schema)
    counts: Counter[str] = Counter()
    changed = 0
    with LocalCopies() as copies:
        for shard in track(shards, "shards"):
            done = refresh_shard(writer, shard, copies)
            counts[done.outcome] += 1
            changed += done.labels
            if line := _line(done):
                click.echo(printable(line))
    click.echo(
        f"{counts['refreshed']:,} of {counted(len(shards), 'shard')} refreshed, {counted(changed, 'label')} changed; "
        f"unchanged: {counts['unchanged']:,}, not annotated yet: {counts['missing']:,}"
    )
    if refused := counts["refused"]:
        raise FailedShardsError(f"{refused:,} of {len(shards):,} shards refused; see above")


def _line(done: Refreshed) -> str:
    """A line on a shard; empty where there is nothing to say."""
    if done.outcome == "refreshed":
        return f"refreshed {done.shard}: {counted(done.labels, 'label')} changed"
    if done.outcome == "missing":
        return f"not annotated yet: {done.shard}"
    return f"refused   {done.problem}" if done.outcome == "refused" else ""
