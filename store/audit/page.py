"""An audit as a self-contained HTML page: its facts, its tables, and the label map of each image that it lists.

The page has no scripts and asks for nothing from a network. It needs the extra `web`.
"""

from typing import Any

from store.audit.maps import Maps
from store.audit.report import summary, worst_classes
from store.text import printable
from store.view.marks import class_text, rgb, short_text
from store.view.page import environment, render


def refuse_without_extra() -> None:
    """Raise ModuleNotFoundError where Jinja2 is not installed, before the work begins."""
    environment()


def audit_page(audit: dict[str, Any], top: int, maps: Maps, problems: list[str]) -> str:
    """The page's HTML.

    Args:
        audit: of `Audit.to_json`, with the name of its `store`.
        top: rows shown of the longer tables.
        maps: of the images that the audit lists; may lack some.
        problems: why maps or photographs are missing.
    """
    return render(
        "audit.html",
        images="data:",
        scripts=(),
        audit=audit,
        facts=summary(audit),
        worst=worst_classes(audit, top),
        top=top,
        maps=maps,
        problems=problems,
        shown=printable,
        rgb=rgb,
        short=lambda entry, role="": short_text(*_class(entry, role)),
        whole=lambda entry, role="": class_text(*_class(entry, role)),
    )


def _class(entry: dict[str, Any], role: str) -> tuple[int, str]:
    """Number and name of an entry's class; `role` is label or top where the entry has both."""
    number, name = (role, f"{role}_name") if role else ("class", "name")
    return entry[number], entry[name]
