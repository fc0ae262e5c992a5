"""What the terminal's pictures are made of: tables of printable text, and the console they go to."""

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.text import printable
from store.view.describe import Description

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
