"""HTML of a store and of a row for a notebook: self-contained, without scripts, every text escaped.

`LabelStore` and `GroupRow` import this module when a notebook displays them.
"""

from collections.abc import Iterable, Sequence
from html import escape

from store.errors import RelabelError
from store.group import GroupRow
from store.maps.types import WHOLE_IMAGE
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.text import counted, printable
from store.view.describe import Description, describe_row, describe_store, list_groups, refuse_undecodable
from store.view.images import ShardImages
from store.view.marks import (
    OTHERS,
    Colour,
    Marks,
    cell_colour,
    class_text,
    is_dark,
    label_text,
    legend,
    rgb,
    row_marks,
    short_text,
    strength,
)
from store.view.terminal import store_facts

PAGE_HEIGHT = 780  # pixels
CELL_SIDE = 18  # pixels
BAR_WIDTH = 160  # pixels of the longest bar
FONT = "font:13px/1.4 system-ui,sans-serif"
MONOSPACE = "font:600 11px/1 ui-monospace,monospace"
TEXT = "text-align:left;padding:1px 12px 1px 6px;vertical-align:top;overflow-wrap:anywhere;max-width:"
NARROW, WIDE = f"{TEXT}260px", f"{TEXT}640px"  # of class names, of facts
NUMBER = "text-align:right;padding:1px 6px"


class NotebookPage:
    """A page in a frame of the notebook; its scripts have no access to the notebook."""

    def __init__(self, page: str, name: str) -> None:
        self.page, self.name = page, name

    def __repr__(self) -> str:
        return f"NotebookPage({self.name!r}; a notebook displays it)"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts" title="{_text(self.name)}" '
            f'style="width:100%;height:{PAGE_HEIGHT}px;border:1px solid rgb(128,128,128)"></iframe>'
        )


def row_page(row: GroupRow, patterns: Sequence[str]) -> NotebookPage:
    """The page of `relabel-store show --html`; see `GroupRow.show`."""
    from store.view.page import sample_page

    refuse_undecodable(row)
    image = decode_image(ShardImages(patterns).read(row.group, row.number)) if patterns else None
    return NotebookPage(sample_page(row, image), row.key)


def store_html(store: LabelStore) -> str:
    """A store's facts as a table; of a store that cannot be read, the problem."""
    try:
        groups = list_groups(store)
    except RelabelError as error:
        return _facts([("store", str(store)), ("problem", str(error))])
    facts = store_facts(describe_store(store, groups))
    if damaged := [group for group in groups if group["damaged"] is not None]:
        facts.append(("damaged", f"{counted(len(damaged), 'group')}; the first: {damaged[0]['damaged']}"))
    return _facts(facts)


def row_html(row: GroupRow) -> str:
    """A row's facts, its map as coloured cells with a legend, and the whole image's target as bars."""
    shown = describe_row(row)
    label = label_text(row.label, shown["target_name"])
    facts = [("key", row.key), ("group", f"{row.group.name}, row {row.number}"), ("label", label)]
    if row.undecodable is not None:
        return _facts([*facts, ("undecodable", row.undecodable)])
    marks = row_marks(shown)
    parts = (_cells(shown, marks), _legend(shown, marks), _bars(shown, marks))
    return (
        f'{_facts(facts)}<div style="display:flex;flex-wrap:wrap;gap:8px 24px;margin-top:8px;{FONT}">'
        + "".join(f"<div>{part}</div>" for part in parts)
        + "</div>"
    )


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return _table(
        f'<th scope="row" style="{WIDE}">{_text(name)}</th><td style="{WIDE}">{_text(value)}</td>'
        for name, value in pairs
    )


def _cells(row: Description, marks: Marks) -> str:
    """A cell's letter and colour are its top-1 class's, the paler the less confident; its title names the class."""
    names = {entry["class"]: entry["name"] for entry in row["dominant"]}
    side = f"width:{CELL_SIDE}px;height:{CELL_SIDE}px;padding:0;border:0;text-align:center;{MONOSPACE}"
    lines = []
    for ids, confidences in zip(row["classes"][0], row["confidence"], strict=True):
        cells = []
        for class_id, confidence in zip(ids, confidences, strict=True):
            letter, colour = marks.get(class_id, OTHERS)
            title = _text(f"{class_text(class_id, names[class_id])}: {confidence:.2f}")
            shown = f'<span style="opacity:{strength(confidence):.2f}">{letter}</span>'
            cells.append(f'<td title="{title}" style="{side};{_on(cell_colour(colour, confidence))}">{shown}</td>')
        lines.append("".join(cells))
    return _table(lines)


def _legend(row: Description, marks: Marks) -> str:
    side = f"width:{CELL_SIDE}px;padding:0;text-align:center;{MONOSPACE}"
    lines = (
        f'<td style="{side};{_on(entry.mark[1])}">{entry.mark[0]}</td>'
        f'{_cell(entry.text, entry.title)}<td style="{NUMBER}">{entry.cells}</td>'
        for entry in legend(row, marks)
    )
    return _table(lines, f'<th></th><th style="{NARROW}">top-1 class</th><th style="{NUMBER}">cells</th>')


def _bars(row: Description, marks: Marks) -> str:
    """The largest classes of the whole image's target."""
    longest = row["pooled"][0]["probability"]
    lines = []
    for entry in row["pooled"]:
        probability = entry["probability"]
        colour = marks.get(entry["class"], OTHERS)[1]
        bar = f"height:12px;width:{max(BAR_WIDTH * probability / longest, 1):.0f}px;background:{rgb(colour)}"
        lines.append(
            f"{_cell(short_text(entry['class'], entry['name']), class_text(entry['class'], entry['name']))}"
            f'<td style="width:{BAR_WIDTH}px;padding:0;vertical-align:middle"><div style="{bar}"></div></td>'
            f'<td style="{NUMBER}">{probability:.3f}</td>'
        )
    part = "image" if row["region"] == list(WHOLE_IMAGE) else "map"
    return _table(lines, f'<th colspan="3" style="{NARROW}">target of the whole {part}</th>')


def _table(rows: Iterable[str], head: str = "") -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<table style="border-collapse:collapse;{FONT}">{top}<tbody>{body}</tbody></table>'


def _cell(text: str, title: str) -> str:
    return f'<td style="{NARROW}" title="{_text(title)}">{_text(text)}</td>'


def _on(colour: Colour) -> str:
    return f"background:{rgb(colour)};color:{'#fff' if is_dark(colour) else '#000'}"


def _text(text: str) -> str:
    """Printable and escaped: keys, class names and paths are hostile."""
    return escape(printable(text))
