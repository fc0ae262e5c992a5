"""The command `relabel-store show`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from store.command import examples
from store.files import check_outputs
from store.pooling import Box
from store.reader import LabelStore
from store.view.describe import Description, describe_group, describe_store, list_groups, refuse_damage
from store.view.render import render_group, render_groups, render_store
from store.view.tables import make_console

labels_argument = click.argument("labels", metavar="LABELS")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class OutputFile(click.Path):
    """The path of a file to write."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """A Path."""
        if not value:
            self.fail("expected the name of a file", param, ctx)
        return super().convert(value, param, ctx)


OUTPUT = OutputFile(path_type=Path, dir_okay=False)


class Numbers(click.ParamType[tuple[Any, ...]]):
    """Numbers with commas between them, such as `0.1,0.2,0.5,1`."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], names: str) -> None:
        self.kind, self.names = kind, names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:  # noqa: ANN401
        """A tuple of them."""
        pattern = r"\d{1,9}" if self.kind is int else r"\d{0,9}\.?\d{0,20}"
        parts = [part.strip() for part in value.split(",")]
        if len(parts) != self.names.count(",") + 1 or not all(re.fullmatch(pattern, part) for part in parts):
            self.fail(f"{value!r}: expected {self.names}", param, ctx)
        try:
            return tuple(self.kind(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r}: expected {self.names}", param, ctx)


@click.command(
    epilog=examples(
        "relabel-store show labels.zarr",
        "relabel-store show labels.zarr n02415577_0349 --box 0,0,0.5,1",
        "relabel-store show labels.zarr n02415577_0349 --html map.html \\\n    --shards 'train-{0000..1023}.tar'",
    )
)
@labels_argument
@click.argument("what", required=False, metavar="[GROUP|KEY]")
@click.option("--shards", "patterns", metavar="PATTERN", multiple=True,
              help="The image shards, to show the image itself: local paths with braces ({0000..1023}) or globs (*), "
              "in quotes. Repeatable.")  # fmt: skip
@click.option(
    "--cell", type=Numbers(int, "y,x"), metavar="Y,X", help="The kept classes of one cell; 0,0 is the top left."
)
@click.option("--box", type=Numbers(float, "x1,y1,x2,y2"), metavar="X1,Y1,X2,Y2",
              help="The target of this crop; corners are shares (0 to 1) of the image's width and height.")  # fmt: skip
@click.option("--png", type=OUTPUT, metavar="FILE",
              help="Write the image, its map over it and the target as a picture; needs --shards.")  # fmt: skip
@click.option("--html", type=OUTPUT, metavar="FILE",
              help="Write a page to explore cells and crops; with --shards it shows the image.")  # fmt: skip
@json_option
def show(
    labels: str,
    what: str | None,
    patterns: tuple[str, ...],
    cell: tuple[int, int] | None,
    box: Box | None,
    png: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show a store, a group, or an image's label map.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. GROUP is the name of an image shard
    without .tar; KEY is an image's, its name in the shard up to the first dot. The options, except --json, need a KEY.
    """
    store = LabelStore.open(labels)
    of_key = {"--shards": patterns, "--cell": cell, "--box": box, "--png": png, "--html": html}
    given = [name for name, value in of_key.items() if value not in (None, ())]
    if what is None or what in store:
        if given:
            raise click.UsageError(f"{given[0]} needs the key of an image")
        _show_group(store, what, as_json) if what is not None else _show_store(store, as_json)
        return
    from store.view.show_row import RowView  # draws; a store's summary needs none of it

    if png is not None and not patterns:
        raise click.UsageError("--png needs --shards, for the image itself")
    view = RowView.find(store, what, patterns)
    description = view.describe(cell, box)
    check_outputs([file for file in (png, html) if file is not None], inputs=view.shards)
    if png is not None:
        view.write_png(png, box)
    if html is not None:
        view.write_html(html, box)
    print_description(as_json, description, *(() if as_json else view.render(description, make_console(), box)))


def _show_store(store: LabelStore, as_json: bool) -> None:
    groups = list_groups(store)
    summary = describe_store(store, groups)
    print_description(as_json, {**summary, "groups": groups}, render_store(summary), render_groups(groups))
    refuse_damage(groups)


def _show_group(store: LabelStore, name: str, as_json: bool) -> None:
    description = describe_group(store.group(name))
    print_description(as_json, description, render_group(description))


def print_description(as_json: bool, description: Description | Sequence[Description], *parts: RenderableType) -> None:
    """Print a description as JSON, or drawn part by part."""
    if as_json:
        click.echo(json.dumps(description))
        return
    console = make_console()
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part)
