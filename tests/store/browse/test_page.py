"""The pages of `relabel-store browse` in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Page, expect

from store.maps.pooling import crop_target
from store.reader import LabelStore
from store.text import printable
from tests.builders.browse_server import Server, browse, watched, write_index
from tests.builders.view_store import EVIL_KEY, shard_keys, view_schema, write_view_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("browse"), 5)


@pytest.fixture(scope="module")
def server(made: tuple[Path, str]) -> Iterator[Server]:
    index = write_index(made[0].parent / "index.npz", made[0])
    with browse(made[0], "--shards", made[1], "--audit", index) as server:
        yield server


@pytest.fixture
def store_page(page: Page, server: Server) -> Iterator[Page]:
    """The first page, watched: the test fails if anything asks elsewhere or complains."""
    with watched(page, server.url, within=server.url + "/"):
        yield page


def press(page: Page, key: str) -> None:
    """Press a key that leads to another page, and wait until that one listens to keys."""
    with page.expect_navigation():
        page.keyboard.press(key)


def test_every_thumbnail_is_drawn(store_page: Page) -> None:
    images = store_page.locator(".thumbnail img")
    expect(images).to_have_count(23)  # of 24 thumbnails one is undecodable
    assert images.evaluate_all("images => images.every((image) => image.complete && image.naturalWidth === 64)")


def test_hostile_key_is_text_on_its_thumbnail_and_its_page(store_page: Page) -> None:
    thumbnail = store_page.locator(".thumbnail").nth(1)
    expect(thumbnail.locator("b")).to_have_text(printable(EVIL_KEY))
    thumbnail.click()
    expect(store_page.locator("h1")).to_have_text(printable(EVIL_KEY))


def test_keyboard_alone_searches_opens_and_goes_on(store_page: Page) -> None:
    store_page.keyboard.press("Tab")
    store_page.keyboard.type("npn")  # letters in a field are no commands
    assert store_page.locator("input[name=key]").input_value() == "npn"
    for _ in range(3):
        store_page.keyboard.press("Backspace")
    store_page.keyboard.type("g0/img003")
    press(store_page, "Enter")
    expect(store_page.locator("h1")).to_have_text("g0/img003")
    for _ in range(5):
        press(store_page, "n")
    expect(store_page.locator("h1")).to_have_text("g1/img001")
    press(store_page, "p")
    expect(store_page.locator("h1")).to_have_text("g1/img000")


def test_keyboard_goes_from_page_to_page(store_page: Page) -> None:
    press(store_page, "n")
    expect(store_page.locator(".thumbnail b").first).to_have_text(shard_keys(3)[3])
    press(store_page, "p")
    expect(store_page.locator(".thumbnail b").first).to_have_text(shard_keys(0)[0])


def test_sorted_thumbnails_lead_to_samples_in_that_order(store_page: Page) -> None:
    with store_page.expect_navigation():
        store_page.get_by_role("link", name="disagreement").click()
    second = store_page.locator(".thumbnail b").nth(1).inner_text()
    with store_page.expect_navigation():
        store_page.locator(".thumbnail").first.click()
    press(store_page, "n")
    expect(store_page.locator("h1")).to_have_text(second)


def test_sample_shows_the_target_that_python_pools(store_page: Page, made: tuple[Path, str], server: Server) -> None:
    store_page.goto(f"{server.url}/sample?at=train-2:4")
    expected = crop_target(view_schema(), LabelStore.open(made[0]).group("train-2").row(4))
    bars = store_page.locator("#bars li")
    assert bars.count() >= 6
    for i in range(bars.count()):
        c = int(bars.nth(i).get_attribute("data-class") or "")
        assert float(bars.nth(i).locator("> .number").inner_text()) == pytest.approx(expected[c], abs=1e-4)


def test_sorted_search_is_kept_from_page_to_page(store_page: Page) -> None:
    with store_page.expect_navigation():
        store_page.get_by_role("link", name="entropy").click()
    store_page.locator("input[name=key]").fill("img00")
    press(store_page, "Enter")
    expect(store_page.get_by_role("status")).to_contain_text("images by entropy")
    keys = store_page.locator(".thumbnail b").all_inner_texts()
    assert all("img00" in key for key in keys)
    with store_page.expect_navigation():
        store_page.locator(".thumbnail").nth(1).click()
    expect(store_page.locator("h1")).to_have_text(keys[1])
    press(store_page, "n")
    expect(store_page.locator("h1")).to_have_text(keys[2])
    with store_page.expect_navigation():
        store_page.get_by_role("link", name="all images").click()
    assert store_page.locator("input[name=key]").input_value() == "img00"
    with store_page.expect_navigation():
        store_page.get_by_role("link", name="store", exact=True).click()
    assert store_page.locator("input[name=key]").input_value() == "img00"


def test_long_keys_do_not_stretch_a_thumbnail(store_page: Page) -> None:
    heights = store_page.locator(".thumbnail b").evaluate_all("keys => keys.map((key) => key.clientHeight)")
    assert max(heights) <= 2.1 * min(heights)


def test_pages_fit_a_phone(store_page: Page, server: Server) -> None:
    store_page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/", "/sample?at=train-0:6", "/sample?at=train-1:2", "/?class=3", "/?class=3&sort=entropy"):
        store_page.goto(server.url + path)
        assert store_page.evaluate("document.documentElement.scrollWidth") == 360
