"""An image's page in a browser: the targets it computes, no requests, hostile names as text."""

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

pytest.importorskip("playwright")
from playwright.sync_api import BrowserContext, Page, expect

from store.cli.main import main
from store.format.schema import StoreSchema
from store.maps.pooling import KINDS, axis_weights, cell_confidence, crop_target
from store.maps.regions import cut_box, labelled_region
from store.maps.types import Box, LabelRow, TargetKind
from store.reader import LabelStore
from store.text import printable
from store.view.describe import describe_cell
from store.view.marks import class_text, short_text, strength
from store.view.page import FOLDER, map_data
from tests.builders.browse_server import watched
from tests.builders.stores import make_labels, make_schema
from tests.builders.view_store import (
    CENTRE_PART,
    EVIL_KEY,
    EVIL_NAME,
    HEIGHT,
    SYNONYMS,
    WIDTH,
    view_schema,
    write_view_store,
)

TOLERANCE = 1e-4
_numbers = itertools.count()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def file(made: tuple[Path, str]) -> Path:
    return write_page(made, EVIL_KEY)


def write_page(made: tuple[Path, str], key: str, *options: str) -> Path:
    file = made[0].parent / f"page-{next(_numbers)}.html"
    arguments = ["show", str(made[0]), key, "--shards", made[1], "--html", str(file), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return file


@pytest.fixture
def sample(page: Page, file: Path) -> Iterator[Page]:
    """The page, watched: the test fails if it asks for anything or complains."""
    with watched(page, file.as_uri(), within=file.as_uri()) as asked:
        yield page
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


@pytest.fixture(scope="module")
def row(made: tuple[Path, str]) -> LabelRow:
    group, index = LabelStore.open(made[0]).find(EVIL_KEY)
    return group.row(index)


def bars(page: Page) -> dict[int, float]:
    """Class to probability, as the page says it."""
    items = page.locator("#bars li")
    return {
        int(items.nth(i).get_attribute("data-class") or ""): float(items.nth(i).locator("> .number").inner_text())
        for i in range(items.count())
    }


def crop(page: Page) -> Box:
    x1, y1, x2, y2 = map(float, page.locator("#box-text").inner_text().split(","))
    return x1, y1, x2, y2


def check_bars(
    page: Page,
    row: LabelRow,
    *,
    kind: TargetKind = "relabel",
    temperature: float = 1.0,
    schema: StoreSchema | None = None,
) -> None:
    box, size = crop(page), (HEIGHT, WIDTH)
    expected = crop_target(schema or view_schema(), row, box=box, kind=kind, temperature=temperature, image_size=size)
    found = bars(page)
    assert {c: expected[c] for c in found} == pytest.approx(found, abs=TOLERANCE)
    assert max(found.values()) == pytest.approx(expected.max(), abs=TOLERANCE)
    assert row.label in found


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    area = page.locator("#stage").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + start[0] * area["width"], area["y"] + start[1] * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + end[0] * area["width"], area["y"] + end[1] * area["height"], steps=4)
    page.mouse.up()


def test_hovered_cell_says_what_python_says(sample: Page, row: LabelRow) -> None:
    area = sample.locator("#stage").bounding_box()
    assert area is not None
    for y, x in ((0, 1), (1, 2), (2, 4), (3, 3)):
        sample.mouse.move(area["x"] + (x + 0.5) / 6 * area["width"], area["y"] + (y + 0.5) / 4 * area["height"])
        expect(sample.locator("#cell-name")).to_have_text(f"y {y}, x {x}")
        expected = describe_cell(view_schema(), row, y, x)["classes"]
        lines = sample.locator("#cell-classes tr")
        assert lines.count() == 3
        for i, entry in enumerate(expected):
            assert lines.nth(i).get_attribute("data-class") == str(entry["class"])
            _, score, probability = lines.nth(i).locator("td").all_inner_texts()
            assert float(score) == pytest.approx(entry["score"], abs=TOLERANCE)
            assert float(probability) == pytest.approx(entry["probability"], abs=TOLERANCE)


def test_names_are_short_and_whole_on_hover(page: Page, made: tuple[Path, str]) -> None:
    page.goto(write_page(made, "g0/img004").as_uri())
    assert "label 7 bighorn; top 3" in page.locator(".facts").inner_text()
    expect(page.locator(".facts bdi")).to_have_attribute("title", f"7 {SYNONYMS}")
    label = page.locator("#bars li[data-class='7'] .class")
    expect(label).to_have_attribute("title", class_text(7, SYNONYMS))
    expect(label.locator("bdi")).to_have_text("7 bighorn")
    assert max(len(name) for name in page.locator(".class bdi").all_inner_texts()) < 40


def test_letters_are_as_opaque_as_their_cells_are_probable(sample: Page, row: LabelRow) -> None:
    confidence = cell_confidence(row.scores, row.tail_logsumexp)
    letters = sample.locator("[role=gridcell] > span")
    found = letters.evaluate_all("letters => letters.map((letter) => Number(getComputedStyle(letter).opacity))")
    assert found == pytest.approx([strength(p) for p in confidence.ravel().tolist()], abs=1e-3)
    assert max(found) - min(found) > 0.2
    label = sample.locator("[role=gridcell]").first.get_attribute("aria-label") or ""
    assert label.endswith(f"probability {confidence[0, 0]:.2f}")


def test_bars_of_a_flat_target_are_drawn_longer(sample: Page) -> None:
    assert [sample.evaluate(f"barScale({largest})") for largest in (1, 0.1, 0.02)] == [1, 1, 50]
    sample.locator("#temperature").fill("20")
    assert 0 < max(bars(sample).values()) < 0.1
    longest = sample.locator("#bars .fill").first
    assert float(longest.evaluate("fill => parseFloat(fill.style.width)")) == pytest.approx(100)
    expect(sample.locator("#rest")).to_have_text(re.compile(r"; bars 1\d times as long as elsewhere$"))


def test_dragged_crop_shows_the_target_that_python_pools(sample: Page, row: LabelRow) -> None:
    assert crop(sample) == (0, 0, 1, 1)
    for start, end in (((0.2, 0.3), (0.7, 0.9)), ((0.95, 0.8), (0.4, 0.1)), ((0.5, 0.5), (0.502, 0.9))):
        drag(sample, start, end)
        assert crop(sample) != (0, 0, 1, 1)
        for kind in KINDS:
            sample.locator(f"input[name=kind][value={kind}]").check()
            for temperature in (0.25, 2.0):
                sample.locator("#temperature").fill(str(temperature))
                check_bars(sample, row, kind=kind, temperature=temperature)
        sample.locator("#temperature").fill("1")
        sample.locator("input[name=kind][value=relabel]").check()


def test_click_is_no_crop(sample: Page) -> None:
    drag(sample, (0.4, 0.6), (0.401, 0.601))
    assert crop(sample) == (0, 0, 1, 1)
    expect(sample.locator("#cell-name")).to_have_text("y 2, x 2")


def test_handles_can_be_dragged(sample: Page, row: LabelRow) -> None:
    drag(sample, (0.3, 0.3), (0.6, 0.6))
    before = crop(sample)
    handle = sample.locator(".handle[data-handle=to]").bounding_box()
    assert handle is not None
    sample.mouse.move(handle["x"] + 10, handle["y"] + 10)
    sample.mouse.down()
    sample.mouse.move(handle["x"] + 60, handle["y"] + 40, steps=3)
    sample.mouse.up()
    after = crop(sample)
    assert after[:2] == before[:2]
    assert after[2] > before[2]
    assert after[3] > before[3]
    check_bars(sample, row)


def test_everything_can_be_done_with_the_keyboard(sample: Page, row: LabelRow) -> None:
    sample.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "End", "Home", "ArrowLeft", "ArrowUp"):
        sample.keyboard.press(key)
    expect(sample.locator("#cell-name")).to_have_text("y 1, x 0")
    expect(sample.locator("[role=gridcell]:focus")).to_have_attribute("data-cell", "1,0")
    sample.keyboard.press("Tab")  # from the grid to the first corner
    for _ in range(3):
        sample.keyboard.press("Shift+ArrowRight")
    sample.keyboard.press("ArrowDown")
    sample.keyboard.press("Tab")
    sample.keyboard.press("Shift+ArrowUp")
    sample.keyboard.press("Tab")
    sample.keyboard.press("ArrowLeft")
    assert crop(sample) == pytest.approx((0.29, 0.01, 0.99, 0.9))
    check_bars(sample, row)
    sample.keyboard.press("Tab")
    sample.keyboard.press("Home")
    assert sample.locator("#colours").evaluate("canvas => canvas.style.opacity") == "0"
    sample.keyboard.press("Tab")
    sample.keyboard.press("Enter")
    assert crop(sample) == (0, 0, 1, 1)
    sample.keyboard.press("Tab")
    sample.keyboard.press("ArrowDown")
    sample.keyboard.press("Tab")
    sample.keyboard.press("ArrowUp")
    assert sample.locator("input[name=kind]:checked").input_value() == "global"
    assert sample.locator("#temperature").input_value() == "1.05"
    check_bars(sample, row, temperature=1.05, kind="global")


def test_hostile_names_are_text(sample: Page) -> None:
    expect(sample.locator("h1")).to_have_text(printable(EVIL_KEY))
    assert sample.title() == printable(EVIL_KEY)
    name = sample.locator("#bars li[data-class='3'] .class")
    expect(name.locator("bdi")).to_have_text(short_text(3, EVIL_NAME))
    expect(name).to_have_attribute("title", f"3 {printable(EVIL_NAME)}")
    assert sample.locator("script").count() == 2
    assert sample.locator("img").count() == 1


def test_policy_forbids_what_is_not_the_pages_own(page: Page, file: Path) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(file.as_uri())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.bad = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://example.invalid/a.png";
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.bad") is None
    assert any("script-src" in text for text in refused)
    assert any("img-src" in text for text in refused)


def test_image_lies_under_its_map(sample: Page) -> None:
    image, canvas = sample.locator("#stage > img"), sample.locator("#colours")
    assert image.bounding_box() == canvas.bounding_box()
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 48]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(context: BrowserContext, file: Path, scheme: str) -> None:
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    paper = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 26)")


def test_crop_of_the_command_line_is_where_the_page_begins(page: Page, made: tuple[Path, str]) -> None:
    page.goto(write_page(made, "g0/img000", "--box", "0.125,0.25,0.5,1").as_uri())
    assert crop(page) == (0.125, 0.25, 0.5, 1)


def test_map_without_tail_or_label_says_so(page: Page, made: tuple[Path, str]) -> None:
    page.goto(write_page(made, "g1/img003").as_uri())
    expect(page.locator("input[name=kind][value=original]")).to_be_disabled()
    expect(page.locator("th").nth(2)).to_have_text("probability among these")


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store whose maps cover the centre of each image."""
    return write_view_store(tmp_path_factory.mktemp("centre"), preprocessing=CENTRE_PART)


def test_cells_lie_on_the_part_of_the_image_that_they_are_of(page: Page, centred: tuple[Path, str]) -> None:
    page.goto(write_page(centred, EVIL_KEY).as_uri())
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    x1, y1, x2, y2 = labelled_region(CENTRE_PART, HEIGHT, WIDTH)
    for layer in ("#colours", "#grid"):
        box = page.locator(layer).bounding_box()
        assert box is not None
        assert box["x"] == pytest.approx(stage["x"] + x1 * stage["width"], abs=0.5)
        assert box["y"] == pytest.approx(stage["y"] + y1 * stage["height"], abs=0.5)
        assert box["width"] == pytest.approx((x2 - x1) * stage["width"], abs=0.5)
        assert box["height"] == pytest.approx((y2 - y1) * stage["height"], abs=0.5)
    across, down = x1 + (x2 - x1) * 4.5 / 6, y1 + (y2 - y1) * 1.5 / 4
    page.mouse.move(stage["x"] + across * stage["width"], stage["y"] + down * stage["height"])
    expect(page.locator("#cell-name")).to_have_text("y 1, x 4")
    page.mouse.move(stage["x"] + 0.02 * stage["width"], stage["y"] + 0.5 * stage["height"])  # outside
    expect(page.locator("#cell-name")).to_have_text("y 1, x 4")


def test_crop_is_cut_to_what_the_map_covers(page: Page, centred: tuple[Path, str]) -> None:
    schema, row = view_schema(CENTRE_PART), LabelStore.open(centred[0]).group("train-0").row(1)
    page.goto(write_page(centred, EVIL_KEY, "--box", "0.1,0.2,0.5,0.9").as_uri())
    check_bars(page, row, schema=schema)
    drag(page, (0.35, 0.3), (0.6, 0.7))
    check_bars(page, row, schema=schema)
    drag(page, (0.05, 0.05), (0.2, 0.9))
    expect(page.locator("#rest")).to_have_text("the label map covers no part of this crop")
    assert bars(page) == {}
    page.locator("input[name=kind][value=global]").check()
    check_bars(page, row, schema=schema, kind="global")


def test_map_of_the_centre_without_its_image_says_what_boxes_are_of(page: Page, centred: tuple[Path, str]) -> None:
    file = centred[0].parent / "alone.html"
    assert CliRunner().invoke(main, ["show", str(centred[0]), EVIL_KEY, "--html", str(file)]).exit_code == 0
    page.goto(file.as_uri())
    expect(page.get_by_text("a crop's corners are relative to that centre")).to_be_visible()


def random_row(schema: StoreSchema, seed: int) -> LabelRow:
    labels = make_labels(schema, 1, seed)
    tail_logsumexp = labels.tail_logsumexp
    assert tail_logsumexp is not None
    return LabelRow(
        key="k",
        classes=labels.classes[0],
        # Far below zero for every third map, so that the largest logit is of a class that was not kept.
        scores=(labels.scores[0] - np.float16(20 * (seed % 3 == 0))),
        tail_logsumexp=np.full_like(tail_logsumexp[0], -np.inf)
        if schema.top_k == schema.num_classes
        else tail_logsumexp[0],
        label=seed % schema.num_classes,
        offset=0,
        length=0,
        undecodable=None,
    )


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> NDArray[np.float64]:
    """Half of the sides aligned to cells, where a rounding error would flip `ceil`."""
    boxes = []
    for _ in range(count):
        sides = []
        for cells in (width, height):
            low = int(rng.integers(0, cells))
            aligned = (low / cells, int(rng.integers(low + 1, cells + 1)) / cells)
            free = np.sort(rng.random(2))
            sides.append(aligned if rng.random() < 0.5 or free[0] == free[1] else tuple(free))
        boxes.append([sides[0][0], sides[1][0], sides[0][1], sides[1][1]])
    return np.array(boxes)


def test_script_weighs_cells_as_python_does_where_boxes_meet_cells(page: Page) -> None:
    page.add_script_tag(content=(FOLDER / "pooling.js").read_text())
    sides = [(i / n, j / n, n) for n in range(1, 25) for i in range(n) for j in range(i + 1, n + 1)]
    found = page.evaluate("sides => sides.map((side) => [...axisWeights(...side)])", sides)
    for side, weights in zip(sides, found, strict=True):
        assert np.abs(axis_weights(*side)[0] - weights).max() < 1e-6, side


def test_script_cuts_boxes_as_python_does(page: Page) -> None:
    page.add_script_tag(content=(FOLDER / "pooling.js").read_text())
    boxes = random_boxes(np.random.default_rng(0), 4, 4, 400)
    pairs = list(zip(boxes[:200].tolist(), boxes[200:].tolist(), strict=True))
    found = page.evaluate("pairs => pairs.map((pair) => cutBox(...pair))", pairs)
    assert None in found
    for (box, region), cut in zip(pairs, found, strict=True):
        expected = cut_box(box, region)
        assert (None if cut is None else tuple(cut)) == expected


@pytest.mark.parametrize(
    ("num_classes", "top_k", "size"), [(20, 3, (5, 7)), (1000, 5, (15, 15)), (4, 4, (2, 9)), (9, 1, (1, 1))]
)
def test_script_pools_as_python_does(page: Page, num_classes: int, top_k: int, size: tuple[int, int]) -> None:
    schema = make_schema(num_classes=num_classes, top_k=top_k, map_size=size)
    page.add_script_tag(content=(FOLDER / "pooling.js").read_text())
    worst, temperatures = 0.0, (1.0, 0.25, 3.0)
    for seed in range(6):
        row = random_row(schema, seed)
        data = map_data(schema, row, None, (0, 0, 1, 1))
        boxes = random_boxes(np.random.default_rng(seed), *size, 25)
        found = page.evaluate(
            """([text, boxes, kinds, temperatures]) => {
                const map = JSON.parse(text);
                map.index = map.classes.map((id) => map.ids.indexOf(id));
                const of = (box, kind, temperature) => {
                    const target = cropTarget(map, box, kind, temperature);
                    return [...target.probabilities, target.other];
                };
                const ofKind = (box, kind) => temperatures.map((temperature) => of(box, kind, temperature));
                return boxes.map((box) => kinds.map((kind) => ofKind(box, kind)));
            }""",
            [json.dumps(data), boxes.tolist(), list(KINDS), list(temperatures)],
        )
        ids = data["ids"]
        for box, by_kind in zip(boxes, found, strict=True):
            for kind, by_temperature in zip(KINDS, by_kind, strict=True):
                for temperature, values in zip(temperatures, by_temperature, strict=True):
                    expected = crop_target(schema, row, box=tuple(box.tolist()), kind=kind, temperature=temperature)
                    worst = max(worst, np.abs(expected[ids] - values[:-1]).max())
                    total = math.fsum(values[:-1]) + values[-1] * (num_classes - len(ids))
                    assert total == pytest.approx(1, abs=1e-6)
    assert worst < TOLERANCE
