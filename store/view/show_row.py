"""One sample as `relabel-store show LABELS KEY` shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType

from store.errors import ImageError
from store.files import written_aside
from store.group import LabelGroup, LabelRow
from store.images import decode_image
from store.pooling import WHOLE_IMAGE, Box
from store.reader import LabelStore
from store.schema import StoreSchema
from store.view.describe import Description
from store.view.photos import Photos
from store.view.render_row import render_box, render_cell, render_row
from store.view.row import describe_box, describe_cell, describe_row, refuse_quarantined


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
        photos = Photos(patterns) if patterns else None
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
        if self.photo is None or self.row.quarantined is not None:
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

        refuse_quarantined(self.row)
        assert self.image is not None
        with written_aside(file) as handle:
            draw_map(handle, self.image, self.row, self.schema, crops=(box or WHOLE_IMAGE,))

    def write_html(self, file: Path, box: Box | None) -> None:
        """A page that needs nothing but itself."""
        from store.view.page import sample_page

        refuse_quarantined(self.row)
        page = sample_page(self.schema, self.group.name, self.index, self.row, self.image, box=box or WHOLE_IMAGE)
        with written_aside(file) as handle:
            handle.write(page.encode())
