"""The commands `relabel-store show` and `ls`: a store, its groups, one image's label map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType

from store.cli.base import examples
from store.cli.options import (
    Numbers,
    json_option,
    labels_argument,
    output_option,
    print_result,
    shards_option,
    temperature_option,
)
from store.errors import ImageError
from store.files import check_outputs, write_atomically
from store.group import GroupRow
from store.maps.types import WHOLE_IMAGE, Box
from store.reader import LabelStore
from store.shards.decode import decode_image
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
    store = LabelStore.open(labels)
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
    check_outputs([file for file in (png, html) if file is not None], inputs=view.shards)
    if png is not None:
        view.write_png(png, box)
    if html is not None:
        view.write_html(html, box)
    print_result(as_json, description, view.render(description, make_console(), box))


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


@dataclass(frozen=True, kw_only=True, eq=False)
class RowView:
    """A row of a store and, where its shard was given, its image."""

    row: GroupRow
    temperature: float
    data: bytes | None = None  # of the image, as in the shard
    shards: Sequence[Path] = ()  # that were given

    @classmethod
    def find(cls, store: LabelStore, key: str, patterns: Sequence[str], temperature: float) -> "RowView":
        """Look a key up, and read its image if shards are given.

        Raises:
            LabelNotFoundError: no such key.
            ShardError: the shard is not among those given, or holds another image.
        """
        images = ShardImages(patterns) if patterns else None
        group, number = store.find(key)
        row = group[number]
        if images is None:
            return cls(row=row, temperature=temperature)
        return cls(row=row, temperature=temperature, data=images.read(group, number), shards=images.files)

    @cached_property
    def image(self) -> NDArray[np.uint8] | None:
        """(h, w, 3) uint8, None without the shard or where the image was undecodable.

        Raises:
            ImageError: it cannot be decoded here.
        """
        if self.data is None or self.row.undecodable is not None:
            return None
        try:
            return decode_image(self.data)
        except ImageError as error:
            raise ImageError(f"{self.row.key!r} in {self.row.group.name}.tar: {error}") from error

    def describe(self, cell: tuple[int, int] | None, box: Box | None) -> Description:
        """The row, with one cell under `cell` and one crop under `crop` where these are asked for."""
        schema, description = self.row.group.schema, describe_row(self.row, temperature=self.temperature)
        if cell is not None:
            description["cell"] = describe_cell(schema, self.row, *cell)
        if box is not None:
            description["crop"] = describe_box(schema, self.row, box, temperature=self.temperature)
        return description

    def render(self, description: Description, console: Console, box: Box | None) -> Iterator[RenderableType]:
        """The parts of a description for the terminal."""
        yield render_row(description, console, self.image, box)
        if "cell" in description:
            yield render_cell(description["cell"])
        if "crop" in description:
            yield render_box(description["crop"])

    def write_png(self, file: Path, box: Box | None) -> None:
        """Write the image, its map over it, and the target of a crop, by default of the whole image."""
        from store.view.figure import draw_map

        refuse_undecodable(self.row)
        assert self.image is not None
        with write_atomically(file.resolve()) as handle:
            draw_map(
                handle,
                self.image,
                self.row,
                self.row.group.schema,
                crops=(box or WHOLE_IMAGE,),
                temperature=self.temperature,
            )

    def write_html(self, file: Path, box: Box | None) -> None:
        """Write the self-contained page."""
        from store.view.page import sample_page

        refuse_undecodable(self.row)
        page = sample_page(self.row, self.image, box=box or WHOLE_IMAGE, temperature=self.temperature)
        with write_atomically(file.resolve()) as handle:
            handle.write(page.encode())
