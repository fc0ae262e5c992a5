"""The command `relabel-store show`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType

from store.cli.base import examples
from store.cli.options import OUTPUT, Numbers, json_option, labels_argument, print_description
from store.errors import ImageError
from store.files import check_outputs, write_atomically
from store.format.schema import StoreSchema
from store.group import LabelGroup
from store.maps.types import WHOLE_IMAGE, Box, LabelRow
from store.reader import LabelStore
from store.shards.images import decode_image
from store.view.describe import (
    Description,
    describe_box,
    describe_cell,
    describe_group,
    describe_row,
    describe_store,
    list_groups,
    refuse_damage,
    refuse_undecodable,
)
from store.view.images import ShardImages
from store.view.terminal import (
    make_console,
    render_box,
    render_cell,
    render_group,
    render_groups,
    render_row,
    render_store,
)


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


# One sample as `relabel-store show LABELS KEY` shows it.


@dataclass(frozen=True, kw_only=True, eq=False)
class RowView:
    """A row of a store and, where its shard was given, its image."""

    schema: StoreSchema
    group: LabelGroup
    index: int
    row: LabelRow
    photo: bytes | None  # as it lies in the shard
    shards: Sequence[Path] = ()  # that were given

    @classmethod
    def find(cls, store: LabelStore, key: str, patterns: Sequence[str]) -> "RowView":
        """Look a key up.

        Raises:
            LabelNotFoundError: no such key.
            ShardError: the shard is not among those given, or holds another image.
        """
        photos = ShardImages(patterns) if patterns else None
        group, index = store.find(key)
        row = group.row(index)
        photo = photos.read(group, index) if photos is not None else None
        return cls(
            schema=store.schema,
            group=group,
            index=index,
            row=row,
            photo=photo,
            shards=[] if photos is None else photos.files,
        )

    @cached_property
    def image(self) -> NDArray[np.uint8] | None:
        """(h, w, 3) uint8, None without the shard or where the row is quarantined.

        Raises:
            ImageError: it cannot be decoded here.
        """
        if self.photo is None or self.row.undecodable is not None:
            return None
        try:
            return decode_image(self.photo)
        except ImageError as error:
            raise ImageError(f"{self.row.key!r} in {self.group.name}.tar: {error}") from error

    def describe(self, cell: tuple[int, int] | None, box: Box | None) -> Description:
        """The row, and under `cell` and `box` what was asked for of its map."""
        description = describe_row(self.schema, self.group, self.index)
        if cell is not None:
            description["cell"] = describe_cell(self.schema, self.row, *cell)
        if box is not None:
            description["crop"] = describe_box(self.schema, self.row, box)
        return description

    def render(self, description: Description, console: Console, box: Box | None) -> Iterator[RenderableType]:
        """The parts of a description for the terminal."""
        yield render_row(description, console, self.image, box)
        if "cell" in description:
            yield render_cell(description["cell"])
        if "crop" in description:
            yield render_box(description["crop"])

    def write_png(self, file: Path, box: Box | None) -> None:
        """The image, its map over it, and the target of a crop, by default of the whole image."""
        from store.view.figure import draw_map

        refuse_undecodable(self.row)
        assert self.image is not None
        with write_atomically(file.resolve()) as handle:
            draw_map(handle, self.image, self.row, self.schema, crops=(box or WHOLE_IMAGE,))

    def write_html(self, file: Path, box: Box | None) -> None:
        """A page that needs nothing but itself."""
        from store.view.page import sample_page

        refuse_undecodable(self.row)
        page = sample_page(self.schema, self.group.name, self.index, self.row, self.image, box=box or WHOLE_IMAGE)
        with write_atomically(file.resolve()) as handle:
            handle.write(page.encode())
