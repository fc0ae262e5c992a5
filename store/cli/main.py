"""The command `relabel-store`: open, describe, print."""

import click

from store.cli.audit import audit
from store.cli.base import CONTEXT, Commands, examples, refuse_nan
from store.cli.browse import browse
from store.cli.maintain import gc, merge_stores, verify
from store.cli.options import json_option, labels_argument, print_description
from store.cli.progress import track
from store.cli.show import show
from store.reader import LabelStore
from store.view.describe import describe_store, list_groups, refuse_damage
from store.view.terminal import render_groups, render_stats, render_store


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="relabel")
def main() -> None:
    """Look at and look after a label store, as `relabel-annotate` writes it.

    LABELS is always the store: a path, or a URL such as s3://bucket/labels.zarr.

    Exit status: 0 all is well; 1 an error or damage, told in a line; 2 wrong usage.
    """


@click.command(epilog=examples("relabel-store info labels.zarr"))
@labels_argument
@json_option
def info(labels: str, as_json: bool) -> None:
    """Say what made a store, and its sizes and compression.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr.
    """
    store = LabelStore.open(labels)
    groups = list_groups(store)
    summary = describe_store(store, groups)
    print_description(as_json, summary, render_store(summary))
    refuse_damage(groups)


@click.command(epilog=examples("relabel-store ls labels.zarr"))
@labels_argument
@json_option
def ls(labels: str, as_json: bool) -> None:
    """List the groups of a store, one for each image shard.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr.
    """
    groups = list_groups(LabelStore.open(labels))
    print_description(as_json, groups, render_groups(groups))
    refuse_damage(groups)


@click.command(epilog=examples("relabel-store stats labels.zarr"))
@labels_argument
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    callback=refuse_nan,
    default=0.5,
    show_default=True,
    help="A class counts as present in an image if it leads in any cell with at least this probability.",
)
@json_option
def stats(labels: str, threshold: float, as_json: bool) -> None:
    """Count classes, and images with several of them.

    Also the entropy of the targets: how undecided they are. LABELS is the label store: a path, or a URL such as
    s3://bucket/labels.zarr. Every label map is read; images that could not be decoded when they were annotated
    (quarantined) are left out.
    """
    from store.maps.statistics import StoreStats

    store = LabelStore.open(labels)
    sums = StoreStats(num_classes=store.schema.num_classes, threshold=threshold)
    for name in track(store.names(), "stats"):
        sums.add(store.group(name))
    description = sums.to_json(store.schema)
    print_description(as_json, description, render_stats(description))


for command in (show, info, ls, browse, audit, stats, verify, merge_stores, gc):
    main.add_command(command)

if __name__ == "__main__":
    main()
