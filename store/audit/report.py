"""An audit's tables on a terminal, with rich. All text is made printable first, and never read as markup."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from store.audit.summary import summary, worst_classes
from store.text import printable
from store.view.render import PALETTE
from store.view.tables import class_text, fact_table, plain

# Blue and vermilion are told apart with every kind of colour vision; columns say the same without colour.
TOP_COLOUR, LABEL_COLOUR = (f"rgb({red},{green},{blue})" for red, green, blue in (PALETTE[0], PALETTE[3]))
Cell = str | Text
MAX_CLASS = 32  # characters of number and name


def render_audit(audit: dict[str, Any], top: int) -> Iterator[RenderableType]:
    """The parts of an audit in order; a table that would be empty is left out."""
    yield fact_table(summary(audit))
    if bad := audit["damaged"]:
        yield _table("Damaged groups, not audited", ("group", "problem"), map(_damaged, bad))
    if images := audit["suspicious"]:
        columns = ("key", "original label", "best cell", "image", "top class", "image")
        yield _table(
            "Images whose label is not on top, the least likely label first", columns, map(_suspicious, images)
        )
    if pairs := audit["confusions"][:top]:
        yield _table("Most frequent confusions", ("original label", "top class", "images"), map(_pair, pairs))
    if images := audit["several_classes"]:
        yield _table("Images with the most classes", ("key", "classes", "bits", "present"), map(_several, images))
    if classes := worst_classes(audit, top):
        counts = ("class", "labelled", "of these on top", "on top", "present")
        yield _table("Classes whose labels are least often on top", counts, map(_counts, classes))
    if (bad := audit["quarantined"]) and top:
        title = _of("Quarantined", top, len(bad))
        yield _table(title, ("key", "group", "row", "reason"), map(_quarantined, bad[:top]))


def _suspicious(image: dict[str, Any]) -> list[Cell]:
    label = _class(image["label"], image["label_name"], LABEL_COLOUR)
    top = _class(image["top"], image["top_name"], TOP_COLOUR)
    shares = (f"{image[name]:.3f}" for name in ("label_best_cell", "label_whole", "top_probability"))
    best, whole, top_whole = shares
    return [plain(image["key"]), label, best, whole, top, top_whole]


def _pair(pair: dict[str, Any]) -> list[Cell]:
    label, top = (
        _class(pair["label"], pair["label_name"], LABEL_COLOUR),
        _class(pair["top"], pair["top_name"], TOP_COLOUR),
    )
    return [label, top, f"{pair['images']:,}"]


def _several(image: dict[str, Any]) -> list[Cell]:
    names = Text(", ").join(_class(entry["class"], entry["name"]) for entry in image["classes"])
    return [plain(image["key"]), str(len(image["classes"])), f"{image['entropy_bits']:.2f}", names]


def _counts(entry: dict[str, Any]) -> list[Cell]:
    counts = (f"{entry[name]:,}" for name in ("labelled", "agree", "on_top", "present"))
    return [_class(entry["class"], entry["name"]), *counts]


def _quarantined(bad: dict[str, Any]) -> list[Cell]:
    return [plain(bad["key"]), plain(bad["group"]), str(bad["row"]), plain(bad["reason"])]


def _damaged(bad: dict[str, Any]) -> list[Cell]:
    return [plain(bad["group"]), plain(bad["problem"])]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Group:
    """A title and its table, whose columns of plain strings are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    filled = list(rows)
    for i, column in enumerate(columns):
        is_number = all(isinstance(row[i], str) for row in filled)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in filled:
        table.add_row(*row)
    return Group(Text(title, style="bold"), table)


def _of(what: str, shown: int, total: int) -> str:
    return f"{what}: {total:,}" if total <= shown else f"{what}: the first {shown:,} of {total:,}"


def _class(class_id: int, name: str, style: str = "") -> Text:
    """A class, cut where its name is a list of synonyms."""
    text = printable(class_text(class_id, name))
    return Text(text if len(text) <= MAX_CLASS else text[: MAX_CLASS - 3] + "...", style=style)
