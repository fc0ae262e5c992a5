"""An audit as one page without scripts that asks for nothing: needs the extra `web`, and `view` for pictures."""

from collections.abc import Mapping
from typing import Any

from store.audit.summary import summary, worst_classes
from store.errors import RelabelError
from store.images import decode_image
from store.reader import LabelStore
from store.text import printable
from store.view.html import environment, render
from store.view.page import jpeg_url
from store.view.photos import Photos
from store.view.tables import class_text

PICTURE_SIDE = 160  # pixels
SHOWN_PROBLEMS = 3

Pictures = dict[tuple[str, int], str]  # `data:` URLs by group and row


def refuse_without_extra() -> None:
    """Find out before the work begins: ModuleNotFoundError where Jinja2 is not installed."""
    environment()


def read_pictures(store: LabelStore, photos: Photos, audit: Mapping[str, Any]) -> tuple[Pictures, list[str]]:
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
