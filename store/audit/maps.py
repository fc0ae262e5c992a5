"""The label maps of the images that an audit lists, as drawings: photograph, cells, and the best cells outlined.

They need the extra `view` where there are photographs. Shape letters: H W cells (y, x).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import AuditSettings, class_cells
from store.errors import RelabelError
from store.group import GroupRow
from store.maps.regions import labelled_region
from store.maps.types import WHOLE_IMAGE, LabelRows
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.text import printable
from store.view.describe import describe_row
from store.view.images import ShardImages
from store.view.marks import OTHERS, LegendEntry, class_text, legend, rgb, row_marks, strength
from store.view.page import jpeg_url

SIDE, LEAST_SIDE = 400, 100  # of a drawing's longer side, and at least of its shorter one; pixels
SHOWN_PROBLEMS = 3

Entry = Mapping[str, Any]  # an image of `Audit.to_json`


@dataclass(frozen=True, kw_only=True, slots=True)
class CellDrawing:
    """One cell: the letter and colour of its top-1 class, as opaque as the class is probable."""

    x: float
    y: float
    letter: str
    colour: str
    opacity: float
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """The cell in which a class of the image is most probable."""

    role: str  # label or top
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MapDrawing:
    """One image's label map, in pixels; `anchor` names it in the page, and `table` the table that lists it."""

    anchor: str
    table: str
    entry: Entry
    width: float
    height: float
    cell_width: float
    cell_height: float
    photo: str | None  # a `data:` URL
    cells: list[CellDrawing]
    outlines: list[Outline]
    legend: list[LegendEntry]


Maps = dict[tuple[str, int], MapDrawing]  # by group and row


def read_maps(
    store: LabelStore, images: ShardImages | None, audit: Mapping[str, Any], settings: AuditSettings
) -> tuple[Maps, list[str]]:
    """The label maps of the images that an audit lists, and why some of them or their photographs are missing.

    Args:
        store: that was audited.
        images: of its shards; None for maps without photographs.
        audit: of `Audit.to_json`.
        settings: of the audit.
    """
    maps: Maps = {}
    problems: list[str] = []
    for table, entry in _listed(audit):
        at = entry["group"], entry["row"]
        if at in maps:
            continue
        try:
            row = store.group(at[0])[at[1]]
        except RelabelError as error:
            problems.append(str(error))
            continue
        photo = None
        try:
            photo = None if images is None else decode_image(images.read(row.group, row.number))
        except RelabelError as error:
            problems.append(str(error))
        maps[at] = _draw(row, photo, entry, settings, anchor=f"map-{len(maps) + 1}", table=table)
    more = len(problems) - SHOWN_PROBLEMS
    return maps, [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]


def _listed(audit: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    for table, images in (("suspicious", audit["suspicious"]), ("several", audit["several_classes"])):
        for entry in images:
            yield table, entry


def _draw(
    row: GroupRow, photo: NDArray[np.uint8] | None, entry: Entry, settings: AuditSettings, *, anchor: str, table: str
) -> MapDrawing:
    _, rows, columns = row.classes.shape
    height, width = _size(*((rows, columns) if photo is None else photo.shape[:2]))
    part = WHOLE_IMAGE if photo is None else labelled_region(row.group.schema.preprocessing, *photo.shape[:2])
    left, top = part[0] * width, part[1] * height
    cell_width, cell_height = (part[2] - part[0]) * width / columns, (part[3] - part[1]) * height / rows
    shown = describe_row(row)
    best = {role: _best_cell(row, entry[role], settings) for role in ("top", "label")}
    return MapDrawing(
        anchor=anchor,
        table=table,
        entry=entry,
        width=width,
        height=height,
        cell_width=cell_width,
        cell_height=cell_height,
        photo=None if photo is None else jpeg_url(photo, SIDE),
        cells=list(_cells(shown, left, top, cell_width, cell_height)),
        outlines=[
            Outline(role=role, x=left + cell[1] * cell_width, y=top + cell[0] * cell_height)
            for role, cell in best.items()
            if cell is not None
        ],
        legend=list(legend(shown, row_marks(shown))),
    )


def _size(height: int, width: int) -> tuple[float, float]:
    """Height and width of a drawing; a very narrow image is drawn wider, so that its cells can be seen."""
    scale = SIDE / max(height, width)
    return max(height * scale, LEAST_SIDE), max(width * scale, LEAST_SIDE)


def _cells(shown: Mapping[str, Any], left: float, top: float, width: float, height: float) -> Iterator[CellDrawing]:
    marks = row_marks(dict(shown))
    names = {entry["class"]: entry["name"] for entry in shown["dominant"]}
    for (y, x), class_id in np.ndenumerate(np.array(shown["classes"][0])):
        letter, colour = marks.get(int(class_id), OTHERS)
        confidence = shown["confidence"][y][x]
        name = class_text(int(class_id), names[int(class_id)])
        yield CellDrawing(
            x=left + x * width,
            y=top + y * height,
            letter=letter,
            colour=rgb(colour),
            opacity=strength(confidence),
            title=printable(f"y {y}, x {x}: {name}, probability {confidence:.2f}"),
        )


def _best_cell(row: GroupRow, class_id: int | None, settings: AuditSettings) -> tuple[int, int] | None:
    """The cell, y and x, that gives a class the highest probability; None where no cell keeps the class."""
    if class_id is None or not (row.classes == class_id).any():
        return None
    tail = None if row.tail_logsumexp is None else row.tail_logsumexp[None]
    maps = LabelRows(classes=row.classes[None], scores=row.scores[None], tail_logsumexp=tail)
    cells = class_cells(maps, np.array([class_id], np.int32), row.group.schema.num_classes, settings.temperature)[0]
    y, x = np.unravel_index(int(cells.argmax()), cells.shape)
    return int(y), int(x)
