"""Drawing one label map on a terminal: its classes, its cells beside the image, one cell, one crop."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from store.maps.pooling import Box
from store.text import printable
from store.view.blocks import half_blocks
from store.view.describe import Description
from store.view.render import OTHER, PALETTE
from store.view.tables import class_cell, class_text, data_table, fact_table

LETTERS = "ABCDEFG"
OTHER_LETTER = "."
IMAGE_LINES = 18  # an image of fewer lines shows nothing
LEGEND_WIDTH = 40  # columns beside the map
CELL_WIDTH = 2  # characters of a cell, which are about as wide as one is high

Marks = dict[int, tuple[str, tuple[int, int, int]]]


def render_row(row: Description, console: Console | None = None, image: NDArray[np.uint8] | None = None,
               box: Box | None = None) -> RenderableType:  # fmt: skip
    """A sample's pooled classes, and its map as a grid of the dominant classes with a legend.

    Args:
        row: of `describe_row`.
        console: where it goes, for the image's size; needed with an image.
        image: (h, w, 3) uint8, drawn beside the map where the console has colours.
        box: a crop to frame in the image.
    """
    label = "none" if row["target"] < 0 else class_text(row["target"], row["target_name"] or str(row["target"]))
    facts = fact_table([("key", row["key"]), ("group", f"{row['group']}, row {row['row']}"), ("original label", label)])
    if row["quarantined"] is not None:
        return Group(facts, Text(f"quarantined: {printable(row['quarantined'])}", style="red"))
    pooled = _pooled_table("whole image, pooled", row["pooled"])
    marks = row_marks(row)
    legend = _legend(row, marks)
    height, width = len(row["classes"][0]), len(row["classes"][0][0])
    if console is not None and CELL_WIDTH * width > console.width:
        wide = f"the map of {height} x {width} cells is wider than this terminal; --html and --png show it"
        return Group(facts, Text(), pooled, Text(), Text(wide), Text(), legend)
    grid = _grid(row, marks, 1)
    is_wide = console is not None and CELL_WIDTH * width + LEGEND_WIDTH > console.width
    plain = Group(grid, Text(), legend) if is_wide else _beside(grid, legend)
    if image is None or console is None or not _draws(console):
        note = [] if image is None else [Text(), Text("the image is drawn where the terminal has colours")]
        return Group(facts, *note, Text(), pooled, Text(), plain)
    # Two pictures of the same size, so that a cell lies where it lies in the image; as large as there is room.
    room = (console.width - 3) // (2 * CELL_WIDTH * width)
    scale = max(1, min(math.ceil(IMAGE_LINES / height), room))
    picture = Text("\n").join(half_blocks(image, scale * height, scale * CELL_WIDTH * width, box))
    return Group(facts, Text(), pooled, Text(), _beside(picture, _grid(row, marks, scale)), Text(), legend)


def render_cell(cell: Description) -> RenderableType:
    """A cell's kept classes with their scores and probabilities."""
    y, x = cell["cell"]
    table = data_table(f"cell y {y}, x {x}", "score", "probability" if cell["exact"] else "probability among these")
    for entry in cell["classes"]:
        table.add_row(class_cell(entry), f"{entry['score']:.3f}", f"{entry['probability']:.4f}")
    return table


def render_box(box: Description) -> RenderableType:
    """A crop's target, and what it gives to the original label."""
    label = box["label"]
    entries = [*box["pooled"], *([label] if label and label not in box["pooled"] else [])]
    corners = ", ".join(f"{side:g}" for side in box["box"])
    return _pooled_table(f"crop {corners}, pooled", entries, label)


def row_marks(row: Description) -> Marks:
    """Letter and colour of the most frequent dominant classes of a `describe_row`."""
    return {
        entry["class"]: (letter, colour)
        for entry, letter, colour in zip(row["dominant"], LETTERS, PALETTE, strict=False)
    }


def _draws(console: Console) -> bool:
    return console.color_system is not None and console.encoding.startswith("utf")


def _beside(*parts: RenderableType) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    table.add_row(*parts)
    return table


def _pooled_table(title: str, entries: list[Description], label: Description | None = None) -> Table:
    fills = list(entries[0]["probability"])
    table = data_table(title, *(f"fill {fill}" for fill in fills))
    for entry in entries:
        name = class_cell(entry)
        if entry == label:
            name.append(" (original label)")
        table.add_row(name, *(f"{entry['probability'][fill]:.3f}" for fill in fills))
    return table


def _legend(row: Description, marks: Marks) -> Table:
    legend = data_table("", "leads in cells of class", "cells")
    for entry in row["dominant"][: len(PALETTE)]:
        letter, colour = marks[entry["class"]]
        legend.add_row(Text(f" {letter} ", _on(colour)), class_cell(entry), str(entry["cells"]))
    if others := row["dominant"][len(PALETTE) :]:
        cells = sum(entry["cells"] for entry in others)
        legend.add_row(Text(f" {OTHER_LETTER} ", _on(OTHER)), Text(f"{len(others)} other classes"), str(cells))
    return legend


def _grid(row: Description, marks: Marks, scale: int) -> Text:
    return Text("\n").join(_grid_lines(row, marks, scale))


def _grid_lines(row: Description, marks: Marks, scale: int) -> Iterator[Text]:
    """`scale` lines per row of cells: the letter of the leading class on its colour, the paler the less sure."""
    for classes, confidences in zip(row["classes"][0], row["confidence"], strict=True):
        for i in range(scale):
            line = Text(no_wrap=True)
            for class_id, confidence in zip(classes, confidences, strict=True):
                letter, colour = marks.get(class_id, (OTHER_LETTER, OTHER))
                shown = letter if i == 0 else ""
                line.append(shown.ljust(CELL_WIDTH * scale), _on(colour, 0.25 + 0.75 * confidence))
            yield line


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Whether white text reads better on a colour than black."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _on(colour: tuple[int, int, int], strength: float = 1.0) -> Style:
    """Black or white text, whichever reads better, on the colour mixed with white."""
    red, green, blue = (round(255 - (255 - value) * strength) for value in colour)
    ink = "bright_white" if is_dark((red, green, blue)) else "black"
    return Style(color=ink, bgcolor=f"rgb({red},{green},{blue})")
