"""An audit's tables on a terminal, with rich. All text is made printable first, and never read as markup."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from store.errors import RelabelError
from store.reader import LabelStore
from store.shards.images import decode_image
from store.text import printable
from store.view.images import ShardImages
from store.view.page import environment, jpeg_url, render
from store.view.terminal import PALETTE, class_text, fact_table, plain

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


# What an audit found, in words and numbers for terminal and page; nothing here is escaped yet.


def summary(audit: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line at the head of an audit."""
    present, none = audit["present"], audit["images_with_classes"][0]
    one, two, more = audit["images_with_classes"][1:]
    lines = [
        ("store", audit["store"]),
        ("images", f"{audit['images']:,}, {len(audit['quarantined']):,} more are quarantined"),
        ("original labels", _labels(audit)),
    ]
    if audit["with_label"]:
        lines += [
            ("label on top", _share(audit, "label_on_top") + " have it as the class of highest probability"),
            ("label elsewhere", _share(audit, "label_present") + " have it in some part of the image only"),
            ("contradicted", _share(audit, "label_contradicted") + " show it nowhere"),
        ]
    return [
        *lines,
        ("present is", f"what leads with a probability of {present['probability']:g} or more in at least "
         f"{present['cells']:,} of an image's cells"),
        ("images with", f"no class: {none:,}; one: {one:,}; two: {two:,}; three or more: {more:,}"),
        ("fill", audit["fill"]),
    ]  # fmt: skip


def worst_classes(audit: dict[str, Any], top: int) -> list[dict[str, Any]]:
    """The classes with the most labelled images whose top class is another."""
    wrong = [entry for entry in audit["classes"] if entry["labelled"] > entry["agree"]]
    return sorted(wrong, key=lambda entry: entry["agree"] - entry["labelled"])[:top]


def _labels(audit: dict[str, Any]) -> str:
    """Whether there is anything to compare the maps with."""
    unknown = audit["unknown_label"]
    strange = f"; {unknown:,} have a number that is none of the teacher's classes" if unknown else ""
    if not audit["with_label"]:
        return f"none, so nothing to compare the maps with: audited for their classes only{strange}"
    if not audit["without_label"]:
        return f"{audit['with_label']:,} images have one{strange}"
    return (f"{audit['with_label']:,} images have one, {audit['without_label']:,} have none and are audited for "
            f"their classes only{strange}")  # fmt: skip


def _share(audit: dict[str, Any], name: str) -> str:
    return f"{audit[name]:,} ({audit[name] / audit['with_label']:.1%})"


# An audit as one page without scripts that asks for nothing: needs the extra `web`, and `view` for pictures.


PICTURE_SIDE = 160  # pixels
SHOWN_PROBLEMS = 3

Pictures = dict[tuple[str, int], str]  # `data:` URLs by group and row


def refuse_without_extra() -> None:
    """Find out before the work begins: ModuleNotFoundError where Jinja2 is not installed."""
    environment()


def read_pictures(store: LabelStore, photos: ShardImages, audit: Mapping[str, Any]) -> tuple[Pictures, list[str]]:
    """The images that an audit lists, small, and what was wrong with those that are left out."""
    pictures: Pictures = {}
    problems: list[str] = []
    for entry in (*audit["suspicious"], *audit["several_classes"]):
        group, row = entry["group"], entry["row"]
        if (group, row) in pictures:
            continue
        try:
            pictures[group, row] = jpeg_url(decode_image(photos.read(store.group(group), row)), PICTURE_SIDE)
        except RelabelError as error:
            problems.append(str(error))
    more = len(problems) - SHOWN_PROBLEMS
    return pictures, [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]


def audit_page(audit: dict[str, Any], top: int, pictures: Pictures, problems: list[str]) -> str:
    """The page's HTML.

    Args:
        audit: of `Audit.to_json`, with the name of its `store`.
        top: rows shown of the longer tables.
        pictures: of images it lists; of those that lack one nothing is shown.
        problems: why some lack one.
    """
    return render(
        "audit.html",
        images="data:",
        scripts=(),
        audit=audit,
        facts=summary(audit),
        worst=worst_classes(audit, top),
        top=top,
        pictures=pictures,
        problems=problems,
        shown=printable,
        class_text=_class_text,
    )


def _class_text(entry: dict[str, Any], kind: str = "") -> str:
    """Number and name of an entry's class; `kind` is label or top where it has both."""
    number, name = (kind, f"{kind}_name") if kind else ("class", "name")
    return printable(class_text(entry[number], entry[name]))
