"""The command `relabel-store`: open, describe, print."""

import json
from collections.abc import Sequence

import click
from rich.console import RenderableType

from store.audit_command import audit
from store.command import Commands, refuse_nan
from store.errors import DamagedStoreError
from store.reader import LabelStore
from store.upkeep import gc, merge_stores, verify
from store.view.describe import Description, describe_group, describe_row, describe_store, list_groups
from store.view.progress import track
from store.view.render import make_console, render_group, render_groups, render_row, render_stats, render_store

labels_argument = click.argument("labels", metavar="LABELS")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Inspect and keep a label store, as `relabel-annotate` writes it.

    LABELS is always the store: a path, or a URL such as s3://bucket/labels.zarr.
    """


@main.command()
@labels_argument
@click.argument("what", required=False, metavar="[GROUP|KEY]")
@json_option
def show(labels: str, what: str | None, as_json: bool) -> None:
    """Show a store, a group, or an image's label map.

    GROUP is the name of an image shard without .tar; KEY is a sample's key, the name of its files up to the first dot.
    """
    store = LabelStore.open(labels)
    if what is None:
        groups = list_groups(store)
        summary = describe_store(store, groups)
        _print(as_json, {**summary, "groups": groups}, render_store(summary), render_groups(groups))
        _refuse_damage(groups)
    elif what in store:
        description = describe_group(store.group(what))
        _print(as_json, description, render_group(description))
    else:
        description = describe_row(store.schema, *store.find(what))
        _print(as_json, description, render_row(description))


@main.command()
@labels_argument
@json_option
def info(labels: str, as_json: bool) -> None:
    """Say what made a store, and its sizes and compression."""
    store = LabelStore.open(labels)
    groups = list_groups(store)
    summary = describe_store(store, groups)
    _print(as_json, summary, render_store(summary))
    _refuse_damage(groups)


@main.command()
@labels_argument
@json_option
def ls(labels: str, as_json: bool) -> None:
    """List the groups of a store, one for each image shard."""
    groups = list_groups(LabelStore.open(labels))
    _print(as_json, groups, render_groups(groups))
    _refuse_damage(groups)


@main.command()
@labels_argument
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=refuse_nan,
    default=0.5,
    show_default=True,
    help="A class is present in an image where it leads in a cell with this probability.",
)
@json_option
def stats(labels: str, threshold: float, as_json: bool) -> None:
    """Count classes, entropy, images with several classes.

    Reads every label map of the store; quarantined rows are left out.
    """
    from store.stats import StoreStats

    store = LabelStore.open(labels)
    sums = StoreStats(num_classes=store.schema.num_classes, threshold=threshold)
    for name in track(store.names(), "stats"):
        sums.add(store.group(name))
    description = sums.to_json(store.schema)
    _print(as_json, description, render_stats(description))


def _print(as_json: bool, description: Description | Sequence[Description], *parts: RenderableType) -> None:
    if as_json:
        click.echo(json.dumps(description))
        return
    console = make_console()
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part)


def _refuse_damage(groups: Sequence[Description]) -> None:
    damaged = [group["damaged"] for group in groups if group["damaged"] is not None]
    if damaged:
        raise DamagedStoreError(f"{len(damaged)} of {len(groups)} groups are damaged; the first: {damaged[0]}")


for command in (verify, gc, merge_stores):
    main.add_command(command)
main.add_command(audit)

if __name__ == "__main__":
    main()
