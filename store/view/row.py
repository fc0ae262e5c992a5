"""A row of a store as a command shows it, with its image: as plain values, in the terminal, as files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType

from store.errors import ImageError
from store.files import open_output
from store.group import GroupRow
from store.maps.types import WHOLE_IMAGE, Box
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.view.describe import Description, describe_box, describe_cell, describe_row, refuse_undecodable
from store.view.images import ShardImages
from store.view.terminal import render_box, render_cell, render_row


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
        size = None if self.image is None else (self.image.shape[0], self.image.shape[1])
        schema, description = self.row.group.schema, describe_row(self.row, size, temperature=self.temperature)
        if cell is not None:
            description["cell"] = describe_cell(schema, self.row, *cell)
        if box is not None:
            description["crop"] = describe_box(schema, self.row, box, size, temperature=self.temperature)
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
        with open_output(file) as handle:
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
        with open_output(file) as handle:
            handle.write(page.encode())
