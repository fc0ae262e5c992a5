"""Tables and pictures for the terminal, with rich: a store, a group, one label map, one cell, one crop.

All text is made printable first, and never read as markup.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from store.maps.regions import cut_box
from store.maps.types import WHOLE_IMAGE, Box
from store.text import counted, printable
from store.view.describe import Description
from store.view.marks import (
    OTHERS,
    Colour,
    Marks,
    cell_colour,
    is_dark,
    label_text,
    legend,
    rgb,
    row_marks,
    short_text,
)

LEAST_WIDTH = 60  # columns: narrower tables would lose some; the terminal breaks the lines
FREE_WIDTH = 10_000  # columns where the output is no terminal: each row of a table is one line
LEGEND_WIDTH = 40  # columns beside the map
CELL_WIDTH = 2  # characters of a cell, which are about as wide as one is high
IMAGE_LINES = 18  # an image of fewer lines shows nothing
SHOWN_KEYS = 10
LIKELY = 0.5  # probability from which a cell's letter is a capital
UPPER_HALF = "\u2580"

Cell = str | Text


def make_console() -> Console:
    """A console that prints plain text where NO_COLOR is set or the output is no terminal; there it breaks no line."""
    # With NO_COLOR alone rich still prints bold; without a colour system it prints text only.
    is_plain = bool(os.environ.get("NO_COLOR"))
    console = Console(color_system=None if is_plain else "auto", highlight=False, markup=False, emoji=False)
    console.width = max(console.width, LEAST_WIDTH) if console.is_terminal else FREE_WIDTH
    return console


def fact_table(pairs: Sequence[tuple[str, str]]) -> Table:
    """Names and values, a line each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), plain(value))
    return table


def data_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table without lines; plain strings are numbers, and columns of numbers are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    filled = list(rows)
    for i, column in enumerate(columns):
        is_number = any(isinstance(cell, str) for row in filled for cell in row[i : i + 1])
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in filled:
        table.add_row(*row)
    return table


def class_cell(entry: Description) -> Text:
    """Number and first synonym of an entry's class."""
    return Text(short_text(entry["class"], entry["name"]))


def plain(value: str) -> Text:
    """Printable text without markup."""
    return Text(printable(value))


def render_store(store: Description) -> RenderableType:
    """A store's facts, and the size and compression of its arrays."""
    rows = []
    for array in store["arrays"]:
        share = f"{array['bytes'] / array['raw_bytes']:.0%}" if array["raw_bytes"] else ""
        an_image = f"{array['bytes'] / max(array['rows'], 1):,.0f}"
        rows.append((plain(array["name"]), f"{array['bytes']:,}", an_image, share))
    return Group(
        fact_table(store_facts(store)), Text(), data_table(("array", "bytes", "bytes an image", "of raw"), rows)
    )


def store_facts(store: Description) -> list[tuple[str, str]]:
    """Name and value of each line about a store from `describe_store`."""
    teacher, preprocessing = store["teacher"], store["view"]
    arguments = ", ".join(f"{name}={value}" for name, value in teacher["arguments"].items())
    return [
        ("store", f"{store['path']} (format version {store['format_version']})"),
        ("teacher", f"{teacher['architecture']} ({arguments}), digest {teacher['digest'][:12]}"),
        ("preprocessing", f"{_mode(preprocessing)} to {_by(preprocessing['input_size'])} px, "
         f"{preprocessing['interpolation']}, mean {_channels(preprocessing['mean'])}, "
         f"std {_channels(preprocessing['std'])}"),
        ("label maps", f"top {store['top_k']} of {store['num_classes']} classes in {_by(store['map_size'])} cells"),
        ("scores", _scores(store)),
        ("images", f"{store['rows']:,} in {counted(store['groups'], 'group')}, {store['quarantined']:,} undecodable"),
        ("size", f"{store['bytes']:,} bytes, {store['bytes'] / max(store['rows'], 1):,.0f} an image"),
    ]  # fmt: skip


def _channels(values: Sequence[float]) -> str:
    """One number where all channels have the same."""
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)


def _scores(store: Description) -> str:
    kind = "logits less the mean of the rest" if store["score_kind"] == "centred_logit" else "logits as they are"
    step = store.get("score_step")
    return kind if step is None else f"{kind}, rounded to multiples of {step:g}"


def render_groups(groups: list[Description]) -> RenderableType:
    """A table of a store's groups; damaged ones are marked."""
    rows: list[Sequence[Cell]] = [
        (plain(group["name"]), *(f"{group[name]:,}" for name in ("rows", "quarantined", "bytes")))
        if group["damaged"] is None
        else (plain(group["name"]), Text("damaged", style="red"))
        for group in groups
    ]
    return data_table(("group", "images", "undecodable", "bytes"), rows)


def render_group(group: Description) -> RenderableType:
    """A group's origin, its undecodable rows and its first keys."""
    provenance = ", ".join(
        value if name in value.split() else f"{name} {value}" for name, value in group["provenance"].items()
    )
    facts = fact_table([
        ("group", group["name"]),
        ("images", f"{group['rows']:,}, {len(group['quarantined']):,} undecodable"),
        ("shard", f"{group['tar']['size']:,} bytes, sha256 {group['tar']['sha256'][:12]}"),
        ("made with", provenance),
        ("size", f"{group['bytes']:,} bytes, {group['bytes'] / max(group['rows'], 1):,.0f} an image"),
        ("keys", ", ".join(group["keys"][:SHOWN_KEYS]) + (", ..." if group["rows"] > SHOWN_KEYS else "")),
    ])  # fmt: skip
    if not group["quarantined"]:
        return facts
    rows = [(str(bad["row"]), plain(bad["key"]), plain(bad["reason"])) for bad in group["quarantined"]]
    return Group(facts, Text(), data_table(("row", "undecodable image", "reason"), rows))


def _mode(preprocessing: Description) -> str:
    crop_pct = preprocessing.get("crop_pct")
    return str(preprocessing["mode"]) if crop_pct is None else f"{preprocessing['mode']} (crop_pct {crop_pct:g})"


def _by(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


def render_row(row: Description, console: Console | None = None, image: NDArray[np.uint8] | None = None,
               box: Box | None = None) -> RenderableType:  # fmt: skip
    """An image's pooled classes, and its map as a grid of the top-1 classes with a legend.

    Args:
        row: of `describe_row`.
        console: where it is printed, for the image's size; needed with an image.
        image: (h, w, 3) uint8, drawn beside the map where the console has colours.
        box: a crop to frame in the image, normalised by the whole image.
    """
    label = label_text(row["target"], row["target_name"])
    facts = fact_table([("key", row["key"]), ("group", f"{row['group']}, row {row['row']}"), ("label", label)])
    if row["quarantined"] is not None:
        return Group(facts, Text(f"undecodable: {printable(row['quarantined'])}", style="red"))
    region: Box = WHOLE_IMAGE if row["region"] is None else tuple(row["region"])
    covers_all = row["region"] == list(WHOLE_IMAGE)
    if not covers_all:
        corners = "" if row["region"] is None else ": " + ", ".join(f"{side:.4g}" for side in region)
        facts.add_row(Text("map covers"), Text(f"the centre of the image{corners}"))
    pooled = _pooled_table(f"whole {'image' if covers_all else 'map'}, pooled", row)
    marks = row_marks(row)
    key = Group(_legend(row, marks), Text(), Text(f"small letters: probability below {LIKELY:g}"))
    height, width = len(row["classes"][0]), len(row["classes"][0][0])
    if console is not None and CELL_WIDTH * width > console.width:
        wide = f"the map of {height} x {width} cells is wider than this terminal; --html and --png show it"
        return Group(facts, Text(), pooled, Text(), Text(wide), Text(), key)
    grid = _grid(row, marks, 1)
    is_wide = console is not None and CELL_WIDTH * width + LEGEND_WIDTH > console.width
    map_and_legend = Group(grid, Text(), key) if is_wide else _beside(grid, key)
    if image is None or console is None or not _draws(console):
        note = [] if image is None else [Text(), Text("the image is drawn where the terminal has colours")]
        return Group(facts, *note, Text(), pooled, Text(), map_and_legend)
    # Two pictures of the same part and size, as large as there is room, so that cells and image correspond.
    room = (console.width - 3) // (2 * CELL_WIDTH * width)
    scale = max(1, min(math.ceil(IMAGE_LINES / height), room))
    picture = Text("\n").join(half_blocks(image, scale * height, scale * CELL_WIDTH * width, box, region))
    return Group(facts, Text(), pooled, Text(), _beside(picture, _grid(row, marks, scale)), Text(), key)


def render_cell(cell: Description) -> RenderableType:
    """A cell's kept classes with their scores and probabilities."""
    y, x = cell["cell"]
    columns = (f"cell y {y}, x {x}", "score", "probability" if cell["exact"] else "probability among these")
    rows = [(class_cell(c), f"{c['score']:.3f}", f"{c['probability']:.4f}") for c in cell["classes"]]
    return data_table(columns, rows)


def render_box(box: Description) -> RenderableType:
    """A crop's target, and its probability of the label."""
    label = box["label"]
    corners = ", ".join(f"{side:g}" for side in box["box"])
    return _pooled_table(f"crop {corners}, pooled", box, label)


def _draws(console: Console) -> bool:
    return console.color_system is not None and console.encoding.startswith("utf")


def _beside(*parts: RenderableType) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    table.add_row(*parts)
    return table


def _pooled_table(title: str, target: Description, label: Description | None = None) -> Table:
    """The largest classes of a target of `describe_row` or `describe_box`, and the label."""
    rows: list[Sequence[Cell]] = []
    for entry in [*target["pooled"], *([label] if label and label not in target["pooled"] else [])]:
        name = class_cell(entry)
        if entry == label:
            name.append(" (label)")
        rows.append((name, f"{entry['probability']:.3f}"))
    hot = "" if target["temperature"] == 1 else f" at temperature {target['temperature']:g}"
    return data_table((title, f"probability{hot}"), rows)


def _legend(row: Description, marks: Marks) -> Table:
    rows = [(_mark(*entry.mark), Text(entry.text), str(entry.cells)) for entry in legend(row, marks)]
    return data_table(("", "top-1 class", "cells"), rows)


def _mark(letter: str, colour: Colour) -> Text:
    return Text(f" {letter} ", _on(colour))


def _grid(row: Description, marks: Marks, scale: int) -> Text:
    return Text("\n").join(_grid_lines(row, marks, scale))


def _grid_lines(row: Description, marks: Marks, scale: int) -> Iterator[Text]:
    """`scale` lines per row of cells: the top-1 class's letter on its colour, the paler the less confident.

    A terminal has no pale letters; those of cells that are not `LIKELY` are small.
    """
    for classes, confidences in zip(row["classes"][0], row["confidence"], strict=True):
        for i in range(scale):
            line = Text(no_wrap=True)
            for class_id, confidence in zip(classes, confidences, strict=True):
                letter, colour = marks.get(class_id, OTHERS)
                shown = (letter if confidence >= LIKELY else letter.lower()) if i == 0 else ""
                line.append(shown.ljust(CELL_WIDTH * scale), _on(cell_colour(colour, confidence)))
            yield line


def _on(colour: Colour) -> Style:
    """Black or white text on the colour, whichever reads better."""
    return Style(color="bright_white" if is_dark(colour) else "black", bgcolor=rgb(colour))


def half_blocks(
    image: NDArray[np.uint8], lines: int, columns: int, box: Box | None = None, region: Box = WHOLE_IMAGE
) -> Iterator[Text]:
    """An image as lines of text, squashed to that many characters, each two pixels: one above the other.

    Needs the extra `view`.

    Args:
        image: (h, w, 3) uint8.
        lines: characters down.
        columns: characters across.
        box: a crop to draw a frame around, normalised by the image.
        region: the part of the image to draw, likewise.
    """
    from PIL import Image

    height, width = image.shape[:2]
    part = (region[0] * width, region[1] * height, region[2] * width, region[3] * height)
    pixels = np.array(Image.fromarray(image).resize((columns, 2 * lines), Image.Resampling.BOX, box=part))
    if box is not None and (cut := cut_box(box, region)) is not None:
        _frame(pixels, cut)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(upper, lower, strict=True):
            line.append(UPPER_HALF, f"{rgb(above)} on {rgb(below)}")
        yield line


def _frame(pixels: NDArray[np.uint8], box: Box) -> None:
    """Turn the pixels on the box's edge into their opposite, which shows on any image."""
    height, width = pixels.shape[:2]
    x1, x2 = (min(round(side * width), width - 1) for side in (box[0], box[2]))
    y1, y2 = (min(round(side * height), height - 1) for side in (box[1], box[3]))
    edge = np.zeros((height, width), bool)
    edge[y1 : y2 + 1, [x1, x2]] = True
    edge[[y1, y2], x1 : x2 + 1] = True
    pixels[edge] = np.where(pixels[edge].mean(axis=1, keepdims=True) < 128, 255, 0)
