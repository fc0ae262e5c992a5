"""A store and a row as a notebook displays them, in a browser: hostile names are text, nothing is asked for."""

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page, expect

from store.errors import LabelMapError, ShardError
from store.group import GroupRow
from store.maps.pooling import cell_confidence, crop_target
from store.reader import LabelStore
from store.text import printable
from store.view.marks import strength
from tests.builders.browse_server import watched
from tests.builders.view_store import BAD_ROW, EVIL_KEY, EVIL_NAME, view_schema, write_view_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("notebook<b>&'\""))


@pytest.fixture
def store(made: tuple[Path, str]) -> LabelStore:
    return LabelStore.open(made[0])


@pytest.fixture
def row(store: LabelStore) -> GroupRow:
    return store["train-0"][1]


@pytest.fixture
def notebook(page: Page, store: LabelStore, row: GroupRow, tmp_path: Path) -> Iterator[Page]:
    """Both displayed on one page, watched: the test fails if it asks for anything or complains."""
    file = tmp_path / "notebook.html"
    body = f"<section id=store>{store._repr_html_()}</section><section id=row>{row._repr_html_()}</section>"
    file.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{body}", encoding="utf-8")
    with watched(page, file.as_uri(), within=file.as_uri()):
        yield page


def test_store_is_a_table_of_its_facts(notebook: Page, made: tuple[Path, str]) -> None:
    rows = notebook.locator("#store tr")
    facts = {rows.nth(i).locator("th").inner_text(): rows.nth(i).locator("td").inner_text() for i in range(6)}
    assert facts["store"] == f"{made[0]} (format version 1)"
    assert facts["images"] == "14 in 2 groups, 1 undecodable"
    assert facts["label maps"] == "top 3 of 20 classes in 4 x 6 cells"
    assert "resnet18" in facts["teacher"]


def test_row_is_its_map_as_cells_and_its_target_as_bars(notebook: Page, row: GroupRow) -> None:
    facts, cells, legend, bars = (notebook.locator("#row table").nth(i) for i in range(4))
    expect(facts.locator("td").first).to_have_text(printable(EVIL_KEY))
    assert [cells.locator("tr").count(), cells.locator("td").count()] == [4, 24]
    confidence = cell_confidence(row.scores, row.tail_logsumexp)
    for (y, x), c in np.ndenumerate(row.classes[0]):
        title = cells.locator("tr").nth(y).locator("td").nth(x).get_attribute("title")
        assert title == f"{c} {printable(view_schema().class_name(int(c)))}: {confidence[y, x]:.2f}"
    opacity = cells.locator("span").evaluate_all("letters => letters.map((letter) => Number(letter.style.opacity))")
    assert opacity == pytest.approx([strength(p) for p in confidence.ravel().tolist()], abs=0.01)
    counts = legend.locator("tbody tr td:last-child").all_inner_texts()
    assert sum(map(int, counts)) == 24
    target = crop_target(view_schema(), row)
    shown = [float(text) for text in bars.locator("tbody tr td:last-child").all_inner_texts()]
    assert shown == pytest.approx(np.sort(target)[:-6:-1], abs=1e-3)


def test_hostile_names_are_text_in_a_notebook(notebook: Page, store: LabelStore) -> None:
    assert notebook.locator("script, img, b").count() == 0
    html = "".join(row._repr_html_() for group in store for row in group) + store._repr_html_()
    assert printable(EVIL_NAME) in unescape(html)
    assert printable(EVIL_KEY) in unescape(html)
    assert not any(text in html for text in ("<script", "<img", "\x1b", "\u202e", "<b>"))


def test_undecodable_row_shows_its_reason(store: LabelStore) -> None:
    html = store["train-0"][BAD_ROW]._repr_html_()
    assert "damaged JPEG: &lt;b&gt;" in html
    assert html.count("<table") == 1
    with pytest.raises(LabelMapError, match="was undecodable and has no label map"):
        store["train-0"][BAD_ROW].show()


def test_store_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path, _ = write_view_store(tmp_path)
    store = LabelStore.open(path)
    (path / "train-1" / "zarr.json").write_text("{")
    assert "1 group; the first: " in unescape(store._repr_html_())
    path.rename(tmp_path / "gone")
    assert "problem" in store._repr_html_()


def test_shown_row_is_the_page_in_a_frame(page: Page, row: GroupRow, made: tuple[Path, str], tmp_path: Path) -> None:
    shown = row.show(made[1])
    assert repr(shown) == f"NotebookPage({EVIL_KEY!r}; a notebook displays it)"
    file = tmp_path / "frame.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{shown._repr_html_()}")
    with watched(page, file.as_uri(), within=file.as_uri()):
        frame = page.frame_locator("iframe")
        expect(frame.locator("h1")).to_have_text(printable(EVIL_KEY))
        expect(frame.locator("#stage > img")).to_be_visible()
        assert frame.locator("#bars li").count() >= 6
        frame.locator("input[name=kind][value=original]").check()
        expect(frame.locator("#bars li").first).to_have_attribute("data-class", str(row.label))


def test_row_is_shown_without_its_image_too(row: GroupRow) -> None:
    assert "<img" not in unescape(row.show()._repr_html_()).split("<script>")[0]


def test_shard_that_was_not_given_is_an_error(row: GroupRow, made: tuple[Path, str]) -> None:
    with pytest.raises(ShardError, match=r"--shards lacks train-0\.tar"):
        row.show(made[0].parent / "train-1.tar")
    assert row.show([made[0].parent / "train-0.tar"]).name == EVIL_KEY
