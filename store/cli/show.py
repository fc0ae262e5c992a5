"""The commands `relabel-store show` and `ls`: a store, its groups, one image's label map."""

from pathlib import Path

import click

from store.cli.base import examples
from store.cli.options import (
    Numbers,
    json_option,
    labels_argument,
    output_option,
    print_result,
    say_written,
    shards_option,
    temperature_option,
)
from store.files import check_outputs
from store.maps.types import Box
from store.reader import LabelStore
from store.text import as_utf8
from store.view.describe import describe_group, describe_store, list_groups, refuse_damage
from store.view.row import RowView
from store.view.terminal import make_console, render_group, render_groups, render_store


@click.command(
    epilog=examples(
        "relabel-store show labels.zarr",
        "relabel-store show labels.zarr n02415577_0349 --box 0,0,0.5,1",
        "relabel-store show labels.zarr n02415577_0349 --html map.html \\\n    --shards 'train-{0000..1023}.tar'",
    )
)
@labels_argument
@click.argument("name", required=False, metavar="[GROUP|KEY]")
@shards_option("The image shards, to show the image itself")
@click.option(
    "--cell", type=Numbers(int, "y,x"), metavar="Y,X", help="The kept classes of one cell; 0,0 is the top left."
)
@click.option("--box", type=Numbers(float, "x1,y1,x2,y2"), metavar="X1,Y1,X2,Y2",
              help="The target of this crop; corners are 0 to 1, relative to the image's sides.")  # fmt: skip
@temperature_option
@output_option("--png", "png", "Write the image, its map over it and the target as a picture; needs --shards.")
@output_option("--html", "html", "Write a page to explore cells and crops; with --shards it shows the image.")
@json_option
def show(
    labels: str,
    name: str | None,
    patterns: tuple[str, ...],
    cell: tuple[int, int] | None,
    box: Box | None,
    temperature: float,
    png: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show a store, a group, or an image's label map.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. GROUP is the name of an image shard
    without .tar; KEY is an image's, its name in the shard up to the first dot. The options, except --json, need a KEY.
    """
    store, name = LabelStore.open(labels), name and as_utf8(name)
    of_key = {"--shards": patterns, "--cell": cell, "--box": box, "--png": png, "--html": html}
    given = [option for option, value in of_key.items() if value not in (None, ())]
    if temperature != 1:
        given.append("--temperature")
    if name is None or name in store:
        if given:
            raise click.UsageError(f"{given[0]} needs the key of an image")
        _show_group(store, name, as_json) if name is not None else _show_store(store, as_json)
        return

    if png is not None and not patterns:
        raise click.UsageError("--png needs --shards, for the image itself")
    view = RowView.find(store, name, patterns, temperature)
    description = view.describe(cell, box)
    outputs = [file for file in (png, html) if file is not None]
    check_outputs(outputs, inputs=view.shards)
    if png is not None:
        view.write_png(png, box)
    if html is not None:
        view.write_html(html, box)
    print_result(as_json, description, view.render(description, make_console(), box))
    say_written(outputs)


@click.command(epilog=examples("relabel-store ls labels.zarr"))
@labels_argument
@json_option
def ls(labels: str, as_json: bool) -> None:
    """List the groups of a store, one for each image shard.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr.
    """
    groups = list_groups(LabelStore.open(labels))
    print_result(as_json, groups, [render_groups(groups)])
    refuse_damage(groups)


def _show_store(store: LabelStore, as_json: bool) -> None:
    groups = list_groups(store)
    summary = describe_store(store, groups)
    print_result(as_json, {**summary, "groups": groups}, [render_store(summary), render_groups(groups)])
    refuse_damage(groups)


def _show_group(store: LabelStore, name: str, as_json: bool) -> None:
    description = describe_group(store.group(name))
    print_result(as_json, description, [render_group(description)])
