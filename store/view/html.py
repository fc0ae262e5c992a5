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


def render(
    template: str,
    *,
    images: str = "'none'",
    forms: str = "'none'",
    scripts: tuple[str, ...] = SCRIPTS,
    **values: Any,  # noqa: ANN401
) -> str:
    """A page, every value in it escaped.

    Args:
        template: its file's name.
        images: where its images may come from, as Content-Security-Policy has it.
        forms: where its forms may go.
        scripts: files of the scripts in it.
        values: the template's variables.
    """
    from markupsafe import Markup  # Jinja2's

    page = environment().get_template(template)
    style, script = _text(STYLE), "\n".join(map(_text, scripts))
    code = _digest(script) if scripts else "'none'"
    policy = (
        f"default-src 'none'; img-src {images}; style-src {_digest(style)}; "
        f"script-src {code}; base-uri 'none'; form-action {forms}"
    )
    return page.render(policy=policy, style=Markup(style), script=Markup(script), **values)


@lru_cache(maxsize=1)
def environment() -> "Environment":
    """Jinja2 with the templates; ModuleNotFoundError where it is not installed."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
