"""An audit as one page without scripts that asks for nothing: needs the extra `web`."""

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

from store.audit_summary import class_text, summary, worst_classes
from store.text import printable

FOLDER = Path(__file__).parent
TEMPLATE, STYLE = FOLDER / "audit_page.html", FOLDER / "audit_page.css"


class AuditPage:
    """The page's template, loaded before the work begins; ModuleNotFoundError where Jinja2 is not installed."""

    def __init__(self) -> None:
        from jinja2 import Environment, StrictUndefined  # the base installation has no Jinja2

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters["shown"] = printable
        environment.filters["class_text"] = _class_text
        self._template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        self._style = STYLE.read_text(encoding="utf-8")

    def render(self, audit: dict[str, Any], top: int) -> str:
        """The page's HTML.

        Args:
            audit: of `Audit.to_json`, with the name of its `store`.
            top: rows shown of the longer tables.
        """
        return self._template.render(
            audit=audit,
            facts=summary(audit),
            worst=worst_classes(audit, top),
            top=top,
            style=self._style,
            style_digest=base64.b64encode(sha256(self._style.encode()).digest()).decode(),
        )


def _class_text(entry: dict[str, Any], kind: str = "") -> str:
    """Number and name of an entry's class; `kind` is label or top where it has both."""
    number, name = (kind, f"{kind}_name") if kind else ("class", "name")
    return printable(class_text(entry[number], entry[name]))
