"""The command `relabel-annotate status`: which shards have labels."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click

from annotator.input.local_copies import LocalCopies
from annotator.run.status import ShardStatus, shard_status
from pipelines.options import sources_option
from store.cli.base import examples
from store.cli.options import json_option, labels_argument
from store.cli.progress import track
from store.reader import LabelStore
from store.shards.patterns import expand_sources
from store.text import printable


@click.command("status", epilog=examples("relabel-annotate status labels.zarr --shards 'train-{0000..1023}.tar'"))
@labels_argument
@sources_option
@json_option
def status_command(labels: str, patterns: tuple[str, ...], as_json: bool) -> None:
    """List which shards have labels.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Each shard is done; missing (not
    annotated yet); changed since it was annotated; unreadable; or damaged (its labels).

    Exit status: 0 for any state of the shards; 1 an error; 2 wrong usage.
    """
    shards = expand_sources(patterns)
    store = LabelStore.open(labels)
    with LocalCopies() as copies:
        found = [shard_status(store, shard, copies) for shard in track(shards, "shards")]
    if as_json:
        click.echo(json.dumps([asdict(status) for status in found]))
        return
    for status in found:
        click.echo(printable(_line(status)))
    click.echo(_totals(found))


def _line(status: ShardStatus) -> str:
    if status.state == "done":
        bad = f", {status.undecodable:,} undecodable" if status.undecodable else ""
        return f"{status.state:10} {status.shard}: {status.rows:,} images{bad}"
    return f"{status.state:10} {status.problem or status.shard}"


def _totals(found: Sequence[ShardStatus]) -> str:
    counts = Counter(status.state for status in found)
    others = "".join(
        f", {counts[state]:,} {state}" for state in ("missing", "changed", "unreadable", "damaged") if counts[state]
    )
    rows, bad = sum(status.rows for status in found), sum(status.undecodable for status in found)
    return f"{counts['done']:,} of {len(found):,} shards done{others}; {rows:,} images, {bad:,} undecodable"
