"""The commands that maintain a store: `relabel-store verify`, `gc` and `merge`."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from store.cli.base import examples, refuse_nan
from store.cli.options import Location, json_option, labels_argument, shards_option
from store.cli.progress import track
from store.errors import VerificationError
from store.maintenance import (
    Fault,
    clean,
    find_leftovers,
    lost_groups,
    merge,
    missing_shards,
    verify_group,
    verify_shard,
)
from store.reader import LabelStore
from store.shards.patterns import expand_shards
from store.text import counted, first_few, printable


@click.command(epilog=examples("relabel-store verify labels.zarr --deep --shards 'train-{0000..1023}.tar'"))
@labels_argument
@click.option("--deep", is_flag=True, help="Read every byte and check every value, not only the sizes of all files.")
@shards_option("Also compare these image shards with their labels, every key and every image")
@json_option
def verify(labels: str, deep: bool, patterns: tuple[str, ...], as_json: bool) -> None:
    """Look for damage in a store.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Nothing in it is changed.

    Exit status: 0 nothing is damaged; 1 something is, each fault in a line; 2 wrong usage.
    """
    store = LabelStore.open(labels)
    shards = expand_shards(patterns)
    names = store.names()
    faults = _report(lost_groups(store), quiet=as_json)
    for name in track(names, "groups"):
        faults += _report(verify_group(store, name, deep=deep), quiet=as_json)
    for path in track(shards, "image shards"):
        faults += _report(verify_shard(store, path), quiet=as_json)
    if as_json:
        click.echo(json.dumps({"groups": len(names), "deep": deep, "faults": [asdict(fault) for fault in faults]}))
    else:
        _print_summary(store, names, shards, deep=deep)
    if faults:
        raise VerificationError(f"{store}: {_summary(faults)}")


def _summary(faults: list[Fault]) -> str:
    """How many faults of how many groups, and what to do."""
    stale = sorted({fault.group for fault in faults if fault.refreshable})
    damaged = sorted({fault.group for fault in faults if not fault.unread and not fault.refreshable})
    unread = sorted({fault.group for fault in faults if fault.unread})
    groups = counted(len({fault.group for fault in faults}), "group")
    parts = [f"{counted(len(faults), 'fault')} in {groups}"]
    if stale:
        parts.append(f"take over the labels and places of {first_few(stale)} (relabel-annotate refresh)")
    if damaged:
        parts.append(f"annotate the shards of {first_few(damaged)} again (--overwrite with only these shards)")
    if unread:
        parts.append(f"{first_few(unread)} could not be read, which says nothing of the labels: see the lines above")
    return "; ".join(parts)


def _report(faults: list[Fault], *, quiet: bool) -> list[Fault]:
    """Print faults as they are found, so that an interrupted run has printed those it found."""
    for fault in faults:
        where = fault.group if fault.array is None else f"{fault.group}/{fault.array}"
        if not quiet:
            click.echo(printable(f"{where}: {fault.problem}"))
    return faults


def _print_summary(store: LabelStore, names: Sequence[str], shards: Sequence[Path], *, deep: bool) -> None:
    depth = "every byte and value" if deep else "sizes only; --deep reads every byte"
    click.echo(f"{printable(str(store))}: {len(names):,} groups checked ({depth})")
    if shards:
        click.echo(f"{len(shards):,} image shards compared with their labels")
        if missing := missing_shards(names, shards):
            click.echo(f"{len(missing):,} groups whose image shards were not given: {printable(first_few(missing))}")


@click.command(epilog=examples("relabel-store gc labels.zarr --dry-run"))
@labels_argument
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(0),
    callback=refuse_nan,
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Keep leftovers that were written within this many hours.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be removed, and its size.")
def gc(labels: str, hours: float, dry_run: bool) -> None:
    """Remove files left by interrupted writers and replaced groups.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Files of running writers are kept, and
    so are all labels.
    """
    store = LabelStore.open(labels)
    total = 0
    for leftover in find_leftovers(store, min_age=hours * 3600):
        if not dry_run:
            clean(store, leftover)
        verb = "remove" if leftover.only_copy_of is None else f"put back as {leftover.only_copy_of}"
        click.echo(printable(f"{'would ' if dry_run else ''}{verb}: {leftover.path} ({leftover.size:,} bytes)"))
        total += leftover.size if leftover.only_copy_of is None else 0
    click.echo(f"{total:,} bytes {'to gain' if dry_run else 'gained'}")


@click.command("merge", epilog=examples("relabel-store merge first.zarr second.zarr --into labels.zarr"))
@click.argument("sources", metavar="LABELS...", type=Location(), nargs=-1, required=True)
@click.option(
    "--into",
    metavar="STORE",
    type=Location(),
    required=True,
    help="The label store to copy to, a path or a URL; created if absent.",
)
def merge_stores(sources: tuple[str, ...], into: str) -> None:
    """Join label stores that were made with the same teacher.

    Copies every group of the stores LABELS that STORE lacks, and checks each byte. LABELS are not changed.

    Exit status: 0 all is joined; 1 something failed or is damaged, each in a line; 2 wrong usage.
    """
    counts: Counter[str] = Counter()
    for merged in merge(sources, into):
        counts[merged.outcome] += 1
        click.echo(printable(f"{merged.group}: {merged.outcome} {merged.problem}".rstrip()), err=True)
    click.echo(
        f"{printable(into)}: {counts['copied']:,} groups copied, {counts['there already']:,} were there already, "
        f"{counts['damaged']:,} are damaged"
    )
    if counts["damaged"]:
        raise VerificationError(f"{counts['damaged']} groups are damaged or lost; annotate their shards again")
