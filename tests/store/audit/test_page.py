"""An audit's page in a browser: pictures lead to maps, the best cells are outlined, a phone shows the first column."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("playwright")
from playwright.sync_api import FloatRect, Locator, Page, expect

from store.audit.figures import AuditSettings, class_cells
from store.audit.maps import read_maps
from store.cli.main import main
from store.maps.types import LabelRows
from store.reader import LabelStore
from store.text import printable
from store.view.marks import short_text, strength
from tests.builders.browse_server import watched
from tests.builders.view_store import SYNONYMS, view_schema, write_view_store

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("page"))


def write_page(file: Path, made: tuple[Path, str], *options: str) -> Path:
    arguments = ["audit", str(made[0]), "--html", str(file), "--threshold", "0", "--top", "20", *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return file


@pytest.fixture(scope="module")
def file(made: tuple[Path, str]) -> Path:
    return write_page(made[0].parent / "audit.html", made, "--shards", made[1])


@pytest.fixture
def audit_page(page: Page, file: Path) -> Iterator[Page]:
    """The page, watched: the test fails if it asks for anything or complains."""
    with watched(page, file.as_uri(), within=file.as_uri()):
        yield page


def area(locator: Locator) -> FloatRect:
    box = locator.bounding_box()
    assert box is not None
    return box


def test_picture_leads_to_its_map_with_the_labels_best_cell_outlined(
    audit_page: Page, made: tuple[Path, str], file: Path
) -> None:
    row = LabelStore.open(made[0]).group("train-0").row(4)
    maps = LabelRows(classes=row.classes[None], scores=row.scores[None], tail_logsumexp=None)
    cells = class_cells(maps, np.array([7], np.int32), 20, 1.0)[0]
    y, x = np.unravel_index(int(cells.argmax()), cells.shape)
    line = audit_page.locator("table").first.locator("tr", has_text="g0/img004")
    assert line.locator(".number").first.inner_text() == f"{cells.max():.3f}"
    picture = line.locator("svg.photo")
    assert area(picture)["width"] >= 160
    line.locator("a").click()
    figure = audit_page.locator("figure:target")
    expect(figure.locator("b").first).to_have_text("g0/img004")
    for drawing in (picture, figure.locator("> svg")):
        outline = drawing.locator(".outline.label")
        assert float(outline.get_attribute("x") or "") == pytest.approx(x * 400 / 6, abs=0.01)
        assert float(outline.get_attribute("y") or "") == pytest.approx(y * 300 / 4, abs=0.01)
    assert figure.locator("image").count() == 1  # once in the page: the picture in the table is the same


def test_maps_are_drawn_as_everywhere(audit_page: Page, made: tuple[Path, str]) -> None:
    row = LabelStore.open(made[0]).group("train-0").row(4)
    figure = audit_page.locator("figure", has_text="g0/img004")
    cells = figure.locator("g")
    assert cells.count() == 24
    opacity = [float(cells.nth(i).get_attribute("opacity") or "") for i in range(24)]
    shown = cells.locator("title").all_text_contents()
    for i, title in enumerate(shown):
        match = re.fullmatch(r"y (\d), x (\d): (\d+) .*, probability ([\d.]+)", title, re.DOTALL)
        assert match is not None
        assert int(match[3]) == row.classes[0, int(match[1]), int(match[2])]
        assert opacity[i] == pytest.approx(strength(float(match[4])), abs=0.01)


def test_names_are_short_and_whole_on_hover(audit_page: Page) -> None:
    name = audit_page.locator("table").first.locator("tr", has_text="g0/img004").locator(".label bdi")
    expect(name).to_have_text(short_text(7, SYNONYMS))
    expect(name).to_have_attribute("title", f"7 {SYNONYMS}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_first_column_stays_on_a_phone(audit_page: Page, scheme: str) -> None:
    audit_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    audit_page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert audit_page.evaluate("document.documentElement.scrollWidth") == 360
    table = audit_page.locator(".wide").first
    table.evaluate("wide => { wide.scrollLeft = 200; }")
    assert table.evaluate("wide => wide.scrollLeft") == 200
    first = table.locator("tbody tr").first.locator("th")
    assert 0 <= area(first)["x"] < 40
    paper = audit_page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert first.evaluate("cell => getComputedStyle(cell).backgroundColor") == paper  # what scrolls is not seen through


def test_maps_need_no_shards(made: tuple[Path, str], tmp_path: Path) -> None:
    page = unescape(write_page(tmp_path / "a.html", made).read_text(encoding="utf-8"))
    assert page.count("<figure") >= 10
    assert "<image" not in page
    assert 'href="#map-1"' in page


def test_hostile_names_are_text_in_the_maps(audit_page: Page) -> None:
    assert audit_page.locator("script, img").count() == 0
    titles = "".join(audit_page.locator("figure title").all_text_contents())
    assert printable(view_schema().class_name(3)) in titles


def test_row_that_cannot_be_read_is_named_and_the_others_have_maps(made: tuple[Path, str]) -> None:
    store = LabelStore.open(made[0])
    entry = {"group": "train-0", "row": 3, "key": "k", "label": None, "top": 1, "top_name": "class 1"}
    audit = {"suspicious": [entry | {"group": "gone"}, entry], "several_classes": [entry]}
    maps, problems = read_maps(store, None, audit, AuditSettings())
    assert list(maps) == [("train-0", 3)]
    assert len(problems) == 1
    assert "gone" in problems[0]
