"""Jinja2's templates beside this file, and the policy that forbids a page everything but its own style and script."""

import base64
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
STYLE = "style.css"
SCRIPTS = ("pooling.js", "map.js", "crop.js", "page.js")


def render(template: str, *, images: str, forms: str = "'none'", **values: Any) -> str:  # noqa: ANN401
    """A page, every value in it escaped.

    Args:
        template: its file's name.
        images: where its images may come from, as Content-Security-Policy has it.
        forms: where its forms may go.
        values: the template's variables.
    """
    from markupsafe import Markup  # Jinja2's

    style, script = _text(STYLE), "\n".join(map(_text, SCRIPTS))
    policy = (
        f"default-src 'none'; img-src {images}; style-src {_digest(style)}; script-src {_digest(script)}; "
        f"base-uri 'none'; form-action {forms}"
    )
    page = _environment().get_template(template)
    return page.render(policy=policy, style=Markup(style), script=Markup(script), **values)


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # the base installation has no Jinja2

    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
