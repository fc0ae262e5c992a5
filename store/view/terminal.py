"""Drawing one label map on a terminal: its classes, its cells beside the image, one cell, one crop."""

import math
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from store.maps.types import Box
from store.text import printable
from store.view.describe import Description

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


# Drawing a store, its groups and its statistics on a terminal with rich.
#
# All text is made printable first, and never read as markup.


# Okabe and Ito's colours, told apart with every kind of colour vision; each has a letter besides.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))
OTHER = (128, 128, 128)
SHOWN_KEYS = 10
FLAT = 0.9  # share of the bits of a uniform target


def render_store(store: Description) -> RenderableType:
    """A store's teacher, view and sizes, and a table of its groups."""
    teacher, view = store["teacher"], store["view"]
    arguments = ", ".join(f"{name}={value}" for name, value in teacher["arguments"].items())
    facts = fact_table([
        ("store", f"{store['path']} (format version {store['format_version']})"),
        ("teacher", f"{teacher['architecture']} ({arguments}), digest {teacher['digest'][:12]}"),
        ("view", f"{view['mode']} to {_by(view['input_size'])} px, {view['interpolation']}"),
        ("label maps", f"top {store['top_k']} of {store['num_classes']} classes in {_by(store['map_size'])} cells"),
        ("images", f"{store['rows']:,} in {store['groups']:,} groups, {store['quarantined']:,} quarantined"),
        ("size", f"{store['bytes']:,} bytes, {store['bytes'] / max(store['rows'], 1):,.0f} an image"),
    ])  # fmt: skip
    table = data_table("array", "bytes", "bytes an image", "of raw")
    for array in store["arrays"]:
        share = f"{array['bytes'] / array['raw_bytes']:.0%}" if array["raw_bytes"] else ""
        an_image = f"{array['bytes'] / max(array['rows'], 1):,.0f}"
        table.add_row(Text(array["name"]), f"{array['bytes']:,}", an_image, share)
    return Group(facts, Text(), table)


def render_groups(groups: list[Description]) -> RenderableType:
    """A table of a store's groups; damaged ones say what is wrong with them."""
    table = data_table("group", "images", "quarantined", "bytes")
    for group in groups:
        table.add_row(plain(group["name"]), *(f"{group[name]:,}" for name in ("rows", "quarantined", "bytes"))
                      if group["damaged"] is None else (Text("damaged", style="red"),))  # fmt: skip
    return table


def render_stats(stats: Description) -> RenderableType:
    """Classes seen, entropy of the targets, images with several classes."""
    none, one, two, more = stats["images_with_classes"]
    facts = fact_table([
        ("images", f"{stats['images']:,}, quarantined ones left out"),
        ("classes", f"{stats['classes_seen']:,} lead in some cell, {len(stats['classes_never_seen']):,} nowhere"),
        ("labels", f"{stats['label_leads']:,} of {stats['labelled']:,} lead in some cell of their own map"),
        ("present is", f"what leads in a cell with a probability of {stats['threshold']:g} or more"),
        ("images with", f"no class {none:,}, one {one:,}, two {two:,}, three or more {more:,}"),
        *((f"bits, fill {fill}", f"mean entropy of the pooled targets {bits['mean']:.2f} of at most "
           f"{stats['uniform_bits']:.2f}; 5 % have less than {bits['p5']:.2f}, half {bits['p50']:.2f}, 95 % "
           f"{bits['p95']:.2f}{_flatness(bits['mean'], stats['uniform_bits'])}")
          for fill, bits in stats["entropy_bits"].items()),
    ])  # fmt: skip
    table = data_table("most seen", "images")
    for entry in stats["most_seen"]:
        table.add_row(class_cell(entry), f"{entry['images']:,}")
    return Group(facts, Text(), table)


def _flatness(mean: float, uniform: float) -> str:
    """A warning about targets of which a student learns little."""
    return ": nearly uniform, students learn little of these" if mean > FLAT * uniform else ""


def render_group(group: Description) -> RenderableType:
    """A group's origin, its quarantined rows and its first keys."""
    provenance = ", ".join(f"{name} {value}" for name, value in group["provenance"].items())
    facts = fact_table([
        ("group", group["name"]),
        ("images", f"{group['rows']:,}, {len(group['quarantined']):,} quarantined"),
        ("shard", f"{group['tar']['size']:,} bytes, sha256 {group['tar']['sha256'][:12]}"),
        ("made with", provenance),
        ("size", f"{group['bytes']:,} bytes, {group['bytes'] / max(group['rows'], 1):,.0f} an image"),
        ("keys", ", ".join(group["keys"][:SHOWN_KEYS]) + (", ..." if group["rows"] > SHOWN_KEYS else "")),
    ])  # fmt: skip
    if not group["quarantined"]:
        return facts
    table = data_table("row", "quarantined key", "reason")
    for bad in group["quarantined"]:
        table.add_row(str(bad["row"]), plain(bad["key"]), plain(bad["reason"]))
    return Group(facts, Text(), table)


def _by(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


# What the terminal's pictures are made of: tables of printable text, and the console they go to.


LEAST_WIDTH = 60  # columns: in fewer, tables would lose some; the terminal breaks the lines
NUMBERS = {"images", "quarantined", "bytes", "bytes an image", "of raw", "cells", "score", "probability"}


def fact_table(pairs: list[tuple[str, str]]) -> Table:
    """Names and values, a line each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), plain(value))
    return table


def data_table(*columns: str) -> Table:
    """A table without lines; columns of numbers are to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        is_number = column in NUMBERS or column.startswith("fill ")
        table.add_column(
            column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number, ratio=None if i else 1
        )
    return table


def class_cell(entry: Description) -> Text:
    """Number and name of an entry's class."""
    return plain(class_text(entry["class"], entry["name"]))


def class_text(class_id: int, name: str) -> str:
    """Number and name, once where the name is the number."""
    return name if name == str(class_id) else f"{class_id} {name}"


def plain(value: str) -> Text:
    """Text that is printed as it is read."""
    return Text(printable(value))


def make_console() -> Console:
    """A console that keeps to plain text where the output is not a terminal or NO_COLOR is set."""
    # rich takes NO_COLOR at its word and keeps bold; without a colour system nothing but text is written.
    is_plain = bool(os.environ.get("NO_COLOR"))
    console = Console(color_system=None if is_plain else "auto", highlight=False, markup=False, emoji=False)
    console.width = max(console.width, LEAST_WIDTH)
    return console


# An image in a terminal: every character is two pixels, one above the other. Needs the extra `view`.


UPPER_HALF = "\u2580"


def half_blocks(image: NDArray[np.uint8], lines: int, columns: int, box: Box | None = None) -> Iterator[Text]:
    """Lines of text that show a whole image, squashed to that many characters.

    Args:
        image: (h, w, 3) uint8.
        lines: characters down.
        columns: characters across.
        box: a crop to draw a frame around, normalised by the image.
    """
    from PIL import Image

    pixels = np.array(Image.fromarray(image).resize((columns, 2 * lines), Image.Resampling.BOX))
    if box is not None:
        _frame(pixels, box)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for above, below in zip(upper, lower, strict=True):
            line.append(UPPER_HALF, f"{_rgb(above)} on {_rgb(below)}")
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


def _rgb(colour: list[int]) -> str:
    return "rgb({},{},{})".format(*colour)
