"""Drawing descriptions on a terminal with rich. All text is made printable first, and never read as markup."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from store.text import printable
from store.view.describe import Description

# Okabe and Ito's colours, told apart with every kind of colour vision; each has a letter besides.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))
OTHER = (128, 128, 128)
LETTERS = "ABCDEFG"
OTHER_LETTER = "."
SHOWN_KEYS = 10
NUMBERS = {"images", "quarantined", "bytes", "bytes an image", "of raw", "cells"}


def render_store(store: Description) -> RenderableType:
    """A store's teacher, view and sizes, and a table of its groups."""
    teacher, view = store["teacher"], store["view"]
    arguments = ", ".join(f"{name}={value}" for name, value in teacher["arguments"].items())
    facts = _facts([
        ("store", f"{store['path']} (format version {store['format_version']})"),
        ("teacher", f"{teacher['architecture']} ({arguments}), digest {teacher['digest'][:12]}"),
        ("view", f"{view['mode']} to {_by(view['input_size'])} px, {view['interpolation']}"),
        ("label maps", f"top {store['top_k']} of {store['num_classes']} classes in {_by(store['map_size'])} cells"),
        ("images", f"{store['rows']:,} in {store['groups']:,} groups, {store['quarantined']:,} quarantined"),
        ("size", f"{store['bytes']:,} bytes, {store['bytes'] / max(store['rows'], 1):,.0f} an image"),
    ])  # fmt: skip
    table = _table("array", "bytes", "bytes an image", "of raw")
    for array in store["arrays"]:
        share = f"{array['bytes'] / array['raw_bytes']:.0%}" if array["raw_bytes"] else ""
        an_image = f"{array['bytes'] / max(array['rows'], 1):,.0f}"
        table.add_row(Text(array["name"]), f"{array['bytes']:,}", an_image, share)
    return Group(facts, Text(), table)


def render_groups(groups: list[Description]) -> RenderableType:
    """A table of a store's groups; damaged ones say what is wrong with them."""
    table = _table("group", "images", "quarantined", "bytes")
    for group in groups:
        table.add_row(_text(group["name"]), *(f"{group[name]:,}" for name in ("rows", "quarantined", "bytes"))
                      if group["damaged"] is None else (Text("damaged", style="red"),))  # fmt: skip
    return table


def render_stats(stats: Description) -> RenderableType:
    """Classes seen, entropy of the targets, images with several classes."""
    none, one, two, more = stats["images_with_classes"]
    facts = _facts([
        ("images", f"{stats['images']:,}, quarantined ones left out"),
        ("classes", f"{stats['classes_seen']:,} lead in some cell, {len(stats['classes_never_seen']):,} nowhere"),
        ("present is", f"what leads in a cell with a probability of {stats['threshold']:g} or more"),
        ("images with", f"no class {none:,}, one {one:,}, two {two:,}, three or more {more:,}"),
        *((f"bits, fill {fill}", f"mean entropy of the pooled targets {bits['mean']:.2f}; 5 % have less than "
           f"{bits['p5']:.2f}, half {bits['p50']:.2f}, 95 % {bits['p95']:.2f}")
          for fill, bits in stats["entropy_bits"].items()),
    ])  # fmt: skip
    table = _table("most seen", "images")
    for entry in stats["most_seen"]:
        table.add_row(_class(entry), f"{entry['images']:,}")
    return Group(facts, Text(), table)


def render_group(group: Description) -> RenderableType:
    """A group's origin, its quarantined rows and its first keys."""
    provenance = ", ".join(f"{name} {value}" for name, value in group["provenance"].items())
    facts = _facts([
        ("group", group["name"]),
        ("images", f"{group['rows']:,}, {len(group['quarantined']):,} quarantined"),
        ("shard", f"{group['tar']['size']:,} bytes, sha256 {group['tar']['sha256'][:12]}"),
        ("made with", provenance),
        ("size", f"{group['bytes']:,} bytes, {group['bytes'] / max(group['rows'], 1):,.0f} an image"),
        ("keys", ", ".join(group["keys"][:SHOWN_KEYS]) + (", ..." if group["rows"] > SHOWN_KEYS else "")),
    ])  # fmt: skip
    if not group["quarantined"]:
        return facts
    table = _table("row", "quarantined key", "reason")
    for bad in group["quarantined"]:
        table.add_row(str(bad["row"]), _text(bad["key"]), _text(bad["reason"]))
    return Group(facts, Text(), table)


def render_row(row: Description) -> RenderableType:
    """A sample's pooled classes, and its map as a grid of the dominant classes with a legend."""
    label = "none" if row["target"] < 0 else _class_text(row["target"], row["target_name"] or str(row["target"]))
    facts = _facts([("key", row["key"]), ("group", f"{row['group']}, row {row['row']}"), ("original label", label)])
    if row["quarantined"] is not None:
        return Group(facts, Text(f"quarantined: {printable(row['quarantined'])}", style="red"))
    fills = list(row["pooled"][0]["probability"])
    pooled = _table("whole image, pooled", *(f"fill {fill}" for fill in fills))
    for entry in row["pooled"]:
        pooled.add_row(_class(entry), *(f"{entry['probability'][fill]:.3f}" for fill in fills))
    marks = _marks(row)
    legend = _table("", "leads in cells of class", "cells")
    for entry in row["dominant"][: len(PALETTE)]:
        letter, colour = marks[entry["class"]]
        legend.add_row(Text(f" {letter} ", _on(colour)), _class(entry), str(entry["cells"]))
    if others := row["dominant"][len(PALETTE) :]:
        cells = sum(entry["cells"] for entry in others)
        legend.add_row(Text(f" {OTHER_LETTER} ", _on(OTHER)), Text(f"{len(others)} other classes"), str(cells))
    grid = Text("\n").join(_grid_lines(row, marks))
    side_by_side = Table.grid(padding=(0, 3))
    side_by_side.add_row(grid, legend)
    return Group(facts, Text(), pooled, Text(), side_by_side)


def _marks(row: Description) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Letter and colour of the most frequent dominant classes."""
    return {
        entry["class"]: (letter, colour)
        for entry, letter, colour in zip(row["dominant"], LETTERS, PALETTE, strict=False)
    }


def _grid_lines(row: Description, marks: dict[int, tuple[str, tuple[int, int, int]]]) -> Iterator[Text]:
    """One line per row of cells: the letter of the leading class on its colour, the paler the less sure."""
    for classes, confidences in zip(row["classes"][0], row["confidence"], strict=True):
        line = Text(no_wrap=True)
        for class_id, confidence in zip(classes, confidences, strict=True):
            letter, colour = marks.get(class_id, (OTHER_LETTER, OTHER))
            line.append(f"{letter} ", _on(colour, 0.25 + 0.75 * confidence))
        yield line


def _on(colour: tuple[int, int, int], strength: float = 1.0) -> Style:
    """Black or white text, whichever reads better, on the colour mixed with white."""
    red, green, blue = (round(255 - (255 - value) * strength) for value in colour)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return Style(color="white" if dark else "black", bgcolor=f"rgb({red},{green},{blue})")


def _class(entry: Description) -> Text:
    return _text(_class_text(entry["class"], entry["name"]))


def _class_text(class_id: int, name: str) -> str:
    """Number and name, once where the name is the number."""
    return name if name == str(class_id) else f"{class_id} {name}"


def _facts(pairs: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), _text(value))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        is_number = column in NUMBERS or column.startswith("fill ")
        table.add_column(
            column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number, ratio=None if i else 1
        )
    return table


def _by(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _text(value: str) -> Text:
    return Text(printable(value))


def make_console() -> Console:
    """A console that keeps to plain text where the output is not a terminal or NO_COLOR is set."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
