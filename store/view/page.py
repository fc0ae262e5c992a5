"""One image's label map as a self-contained HTML page: data, image, style and scripts are in it. Needs the extra `web`.

Also `render`, which fills any of the templates under a policy that lets the page load nothing else.
Shape letters: K top-k, H W cells (y, x).
"""

import base64
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from store.format.schema import SQUASH, StoreSchema
from store.group import GroupRow
from store.maps.pooling import KINDS, has_label
from store.maps.regions import labelled_region
from store.maps.types import WHOLE_IMAGE, Box, LabelRow
from store.text import printable
from store.view.describe import top1_cells
from store.view.marks import OTHERS, Colour, class_marks, class_text, is_dark, label_text, rgb, short_text

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
STYLE = "style.css"
SCRIPTS = ("pooling.js", "map.js", "crop.js", "page.js")
MAX_SIDE = 1024  # pixels of the image in the page
JPEG_QUALITY = 85

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Another sample's page."""

    href: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """The links of a page among many."""

    list: str
    previous: Link | None
    next: Link | None


def sample_page(
    row: GroupRow,
    image: NDArray[np.uint8] | None,
    *,
    box: Box = WHOLE_IMAGE,
    temperature: float = 1.0,
    problem: str | None = None,
    links: Links | None = None,
) -> str:
    """The HTML of a row's page.

    Args:
        row: a row of a store; an undecodable one gets a page with the reason.
        image: (h, w, 3) uint8, None to show the map alone.
        box: the crop to begin with, normalised by the whole image.
        temperature: to begin with; divides the pooled logits before softmax.
        problem: why there is no image.
        links: to other images' pages.
    """
    schema = row.group.schema
    shown = None if row.undecodable is not None else map_data(schema, row, image, box)
    return render(
        "sample.html",
        images="data:",
        facts=_facts(row, problem, has_image=image is not None),
        data=None if shown is None else script_json(shown),
        image=None if image is None else {"url": jpeg_url(image)},
        kinds=_choices(KINDS, KINDS if has_label(schema, row) else KINDS[:-1]),
        temperature=f"{temperature:g}",
        links=links,
    )


def _facts(row: GroupRow, problem: str | None, *, has_image: bool) -> Json:
    schema = row.group.schema
    if row.undecodable is not None:
        problem = f"undecodable, without a label map: {row.undecodable}"
    name = schema.class_name(row.label) if has_label(schema, row) else None
    return {
        "key": printable(row.key),
        "group": row.group.name,
        "row": row.number,
        "label": label_text(row.label, name),
        "label_title": "" if name is None else class_text(row.label, name),
        "top_k": schema.top_k,
        "classes": f"{schema.num_classes:,}",
        "size": f"{schema.map_size[0]} x {schema.map_size[1]}",
        "teacher": printable(schema.teacher.architecture),
        "part": None if schema.preprocessing.mode == SQUASH else "of the image" if has_image else "alone",
        "exact": row.tail_logsumexp is not None,
        "problem": None if problem is None else printable(problem),
    }


def _choices(names: tuple[str, ...], allowed: tuple[str, ...]) -> list[Json]:
    return [{"name": name, "on": name in allowed, "first": i == 0} for i, name in enumerate(names)]


def map_data(schema: StoreSchema, row: LabelRow, image: NDArray[np.uint8] | None, box: Box) -> Json:
    """The map as `pooling.js` takes it, with the letters, colours and legend to draw."""
    top_k, height, width = row.classes.shape
    ids = _shown_classes(schema, row)
    top1 = top1_cells(row)
    marks = class_marks(c for c, _ in top1)
    marked, unmarked = top1[: len(marks)], top1[len(marks) :]
    at = {c: i for i, c in enumerate(ids)}
    picture_height, picture_width = (height, width) if image is None else image.shape[:2]
    # Without the image the page shows the map alone, and boxes are of what it covers.
    region = WHOLE_IMAGE if image is None else labelled_region(schema.preprocessing, picture_height, picture_width)
    return {
        "height": height,
        "width": width,
        "topK": top_k,
        "count": schema.num_classes,
        "ids": ids,
        "names": [short_text(c, schema.class_name(c)) for c in ids],
        "titles": [class_text(c, schema.class_name(c)) for c in ids],
        "classes": row.classes.reshape(-1).tolist(),
        "scores": row.scores.reshape(-1).tolist(),
        "tail": None if row.tail_logsumexp is None else _finite(row.tail_logsumexp),
        "label": row.label if has_label(schema, row) else -1,
        "marks": {at[c]: _mark(*mark) for c, mark in marks.items()},
        "otherMark": _mark(*OTHERS),
        "legend": [[at[c], cells] for c, cells in marked],
        "unmarked": {"classes": len(unmarked), "cells": sum(cells for _, cells in unmarked)},
        "image": {"width": picture_width, "height": picture_height},
        "region": list(region),
        "box": list(box),
    }


def _shown_classes(schema: StoreSchema, row: LabelRow) -> list[int]:
    """Every class that the page may name: the kept ones, the label, and the first of the others.

    All classes that no cell keeps have the same logit; if it is the largest one, the first of them is the arg max.
    """
    shown = set(row.classes.reshape(-1).tolist())
    if has_label(schema, row):
        shown.add(row.label)
    other = next((c for c in range(schema.num_classes) if c not in shown), None)
    return sorted(shown if other is None else shown | {other})


def _finite(tail_logsumexp: NDArray[np.float16]) -> list[float | None]:
    """The tail with None for minus infinity (every class is kept), which JSON cannot hold."""
    return [value if np.isfinite(value) else None for value in tail_logsumexp.reshape(-1).tolist()]


def _mark(letter: str, colour: Colour) -> Json:
    return {"letter": letter, "colour": rgb(colour), "ink": "#fff" if is_dark(colour) else "#000"}


def script_json(value: Json) -> str:
    """JSON for a script element, which it cannot end."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def jpeg_url(image: NDArray[np.uint8], side: int = MAX_SIDE) -> str:
    """An image as a `data:` URL: a JPEG of at most `side` pixels a side."""
    return "data:image/jpeg;base64," + base64.b64encode(small_jpeg(image, side)).decode()


def small_jpeg(image: NDArray[np.uint8], side: int) -> bytes:
    """A JPEG whose longer side is at most `side` pixels."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=JPEG_QUALITY)
    return data.getvalue()


def render(
    template: str,
    *,
    images: str = "'none'",
    forms: str = "'none'",
    scripts: tuple[str, ...] = SCRIPTS,
    **values: Any,  # noqa: ANN401
) -> str:
    """Fill a template; every value is escaped.

    Args:
        template: its file's name.
        images: allowed sources of images, as in a Content-Security-Policy.
        forms: allowed targets of forms.
        scripts: files of the scripts in the page.
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
