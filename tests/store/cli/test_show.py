"""`relabel-store show LABELS KEY` with the shards: image, cell, crop, picture."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from msgspec.structs import replace
from PIL import Image
from rich.console import Console

from store.cli.main import main
from store.maps.pooling import pool_map, softmax
from store.maps.regions import labelled_region
from store.maps.types import WHOLE_IMAGE, Box
from store.reader import LabelStore
from store.shards.decode import decode_image
from store.view.describe import describe_row
from store.view.figure import draw_map
from store.view.row import RowView
from store.view.terminal import half_blocks, render_row
from tests.builders.stores import make_jpeg, write_tar
from tests.builders.view_store import (
    BAD_ROW,
    CENTRE_PART,
    EVIL_KEY,
    HEIGHT,
    WIDTH,
    shard_keys,
    view_schema,
    write_view_store,
)

BOX = (0.1, 0.25, 0.75, 1.0)
BOX_TEXT = ",".join(map(str, BOX))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("show"))


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


def test_cell_lists_its_kept_classes(made: tuple[Path, str]) -> None:
    row = LabelStore.open(made[0]).group("train-0").row(0)
    cell = json.loads(show(made[0], row.key, "--cell", "3,5", "--json").output)["cell"]
    assert [entry["class"] for entry in cell["classes"]] == row.classes[:, 3, 5].tolist()
    assert [entry["score"] for entry in cell["classes"]] == row.scores[:, 3, 5].tolist()
    assert row.tail_logsumexp is not None
    mass = np.exp(np.append(row.scores[:, 3, 5], row.tail_logsumexp[3, 5]).astype(np.float64))
    assert [entry["probability"] for entry in cell["classes"]] == pytest.approx(mass[:-1] / mass.sum(), abs=1e-5)
    assert "cell y 3, x 5" in show(made[0], row.key, "--cell", "3,5").output


def test_probabilities_of_a_cell_without_a_tail_say_what_they_are_of(made: tuple[Path, str]) -> None:
    assert "probability among these" in show(made[0], "g1/img000", "--cell", "0,0").output
    assert "among these" not in show(made[0], "g0/img000", "--cell", "0,0").output


def test_box_is_the_pooled_target_of_that_crop(made: tuple[Path, str]) -> None:
    row = LabelStore.open(made[0]).group("train-0").row(0)
    for temperature in (1.0, 2.5):
        asked = show(made[0], row.key, "--box", BOX_TEXT, "--temperature", temperature, "--json")
        crop = json.loads(asked.output)["crop"]
        expected = softmax(pool_map(row.classes, row.scores, num_classes=20, box=BOX) / np.float32(temperature))
        for entry in [*crop["pooled"], crop["label"]]:
            assert entry["probability"] == pytest.approx(expected[entry["class"]], abs=1e-6)
    assert crop["label"]["class"] == 3
    assert "(label)" in " ".join(show(made[0], row.key, "--box", BOX_TEXT).output.split())


def test_png_shows_image_map_and_target(made: tuple[Path, str], tmp_path: Path) -> None:
    file = tmp_path / "any.name"
    result = show(made[0], EVIL_KEY, "--shards", made[1], "--png", file, "--box", BOX_TEXT)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"wrote {file}\n"
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 1000


@pytest.mark.parametrize(
    ("crops", "titles"),
    [
        ((WHOLE_IMAGE,), ["image", "target of the whole image"]),
        ((BOX,), ["image and crops", "target of the crop"]),
        ((BOX, WHOLE_IMAGE, BOX), ["target of crop 1", "target of the whole image", "target of crop 3"]),
    ],
)
def test_picture_says_what_its_target_is_of(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, crops: tuple[Box, ...], titles: list[str]
) -> None:
    found: list[str] = []

    def collect(figure: Figure, *_: object, **__: object) -> None:
        found.extend(axes.get_title().partition("\n")[0] for axes in figure.axes)

    monkeypatch.setattr(Figure, "savefig", collect)
    row = LabelStore.open(made[0]).group("train-0").row(0)
    draw_map(io.BytesIO(), decode_image(make_jpeg()), row, view_schema(), crops=crops)
    assert [title for title in found if not title.startswith("label map")][-len(titles) :] == titles


def test_names_are_no_mathematics_in_a_picture(made: tuple[Path, str], tmp_path: Path) -> None:
    row = LabelStore.open(made[0]).group("train-0").row(0)
    schema = replace(view_schema(), class_names=("_$\\frac{$ \u4e2d",) * 20)
    draw_map(tmp_path / "a.png", decode_image(make_jpeg()), row, schema, crops=(BOX,))
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store whose maps cover the centre of each image."""
    return write_view_store(tmp_path_factory.mktemp("centre"), preprocessing=CENTRE_PART)


def test_box_is_of_the_whole_image_where_the_map_covers_its_centre(centred: tuple[Path, str]) -> None:
    row = LabelStore.open(centred[0]).group("train-0").row(0)
    arguments = (centred[0], row.key, "--shards", centred[1], "--json", "--box")
    found = json.loads(show(*arguments, "0.1,0.2,0.5,0.9").output)
    x1, _, x2, _ = region = labelled_region(CENTRE_PART, HEIGHT, WIDTH)
    assert found["region"] == list(region)
    logits = pool_map(row.classes, row.scores, num_classes=20, box=(0, 0, (0.5 - x1) / (x2 - x1), 1))
    best = found["crop"]["pooled"][0]
    assert best["probability"] == pytest.approx(softmax(logits)[best["class"]], abs=1e-6)
    assert "outside the centre of the image that its map covers, 0.31" in show(*arguments, "0,0,0.2,1").output
    for box in ("0.1,0.2,0.5,0.9", "0,0,0.2,1"):
        without = show(centred[0], row.key, "--box", box)
        assert (without.exit_code, len(without.output.splitlines())) == (1, 1)
        assert "depends on its size; give the image (--shards)" in without.output


def test_terminal_says_what_part_a_map_covers(centred: tuple[Path, str]) -> None:
    text = show(centred[0], "g0/img000").output
    assert re.search(r"map covers +the centre of the image *\n", text)
    assert "whole map, pooled" in text
    given = show(centred[0], "g0/img000", "--shards", centred[1]).output
    assert re.search(r"map covers +the centre of the image: 0.3118, 0.25, 0.6882, 0.75 *\n", given)
    assert "centre (crop_pct 0.5) to 64 x 64 px" in show(centred[0]).output


def test_terminal_draws_the_part_of_the_image_that_the_map_covers(centred: tuple[Path, str]) -> None:
    row = LabelStore.open(centred[0]).group("train-0")[0]
    image = np.zeros((128, 170, 3), np.uint8)
    image[32:96, 53:117] = 255
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=120)
    console.print(render_row(describe_row(row, (128, 170)), console, image))
    file.seek(0)
    blocks = re.findall(r"\x1b\[([\d;]*)m(\u2580+)", file.read())
    assert {style for style, _ in blocks} == {"38;2;255;255;255;48;2;255;255;255"}


def test_picture_draws_the_cells_on_the_part_that_they_are_of(
    centred: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[float, ...]] = []
    texts: list[tuple[float, float]] = []
    imshow, text = Axes.imshow, Axes.text

    def record_image(*given: Any, **named: Any) -> Any:
        drawn.append(named["extent"])
        return imshow(*given, **named)

    def record_text(panel: Any, x: float, y: float, *given: Any, **named: Any) -> Any:
        texts.append((x, y))
        return text(panel, x, y, *given, **named)

    monkeypatch.setattr(Axes, "imshow", record_image)
    monkeypatch.setattr(Axes, "text", record_text)
    result = show(centred[0], "g0/img000", "--shards", centred[1], "--png", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    x1, y1, x2, y2 = labelled_region(CENTRE_PART, HEIGHT, WIDTH)
    assert drawn == [(0, 1, 1, 0), (0, 1, 1, 0), (x1, x2, y2, y1)]
    cells = texts[: 4 * 6]
    assert cells[0] == pytest.approx((x1 + (x2 - x1) / 12, y1 + (y2 - y1) / 8))
    assert cells[-1] == pytest.approx((x2 - (x2 - x1) / 12, y2 - (y2 - y1) / 8))


def coloured(made: tuple[Path, str], **env: str) -> str:
    """What a terminal of 90 columns gets."""
    command = [sys.executable, "-m", "store.cli.main", "show", str(made[0]), EVIL_KEY, "--shards", made[1]]
    leader, follower = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    env = plain | {"COLUMNS": "90", "TERM": "xterm-256color", "COLORTERM": "truecolor"} | env
    process = subprocess.Popen(command, stdout=follower, env=env)
    os.close(follower)
    parts = []
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # how Linux tells that nobody writes any more
            break
        if not part:
            break
        parts.append(part)
    os.close(leader)
    assert process.wait() == 0
    return b"".join(parts).decode()


def test_terminal_shows_the_image_beside_the_map(made: tuple[Path, str]) -> None:
    text = coloured(made)
    assert text.count("\u2580") == 3 * 4 * 3 * 2 * 6  # 4 x 6 cells, each 3 lines high and 3 * 2 characters wide
    assert not any(not c.isprintable() and c not in "\n\r" for c in re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_no_color_leaves_no_escape_sequence(made: tuple[Path, str]) -> None:
    text = coloured(made, NO_COLOR="1")
    assert "\x1b" not in text
    assert "the image is drawn where the terminal has colours" in text


def test_blocks_carry_the_images_colours() -> None:
    image = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    lines = list(half_blocks(image, 2, 3))
    assert [line.plain for line in lines] == ["\u2580" * 3] * 2
    assert str(lines[1].spans[2].style) == "rgb(24,25,26) on rgb(33,34,35)"


def test_blocks_of_a_region_are_those_of_that_part_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    part = [str(line.spans) for line in half_blocks(image[25:75, 75:125], 4, 8, (0.2, 0.0, 1.0, 0.5))]
    region, box = (0.375, 0.25, 0.625, 0.75), (0.425, 0.1, 0.9, 0.5)
    assert [str(line.spans) for line in half_blocks(image, 4, 8, box, region)] == part


def test_frame_of_a_crop_shows_on_black_and_white() -> None:
    for value, opposite in ((0, "rgb(255,255,255)"), (255, "rgb(0,0,0)")):
        image = np.full((8, 8, 3), value, np.uint8)
        lines = list(half_blocks(image, 4, 8, (0.25, 0.25, 0.75, 0.75)))
        assert str(lines[1].spans[3].style).startswith(opposite)
        assert not str(lines[0].spans[0].style).startswith(opposite)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--cell", "4,0"], 1, "cell 4,0: the map has 4 x 6 cells, so y is 0 to 3 and x 0 to 5"),
        (["--cell", "1"], 2, "'1': expected y,x"),
        (["--cell", "-1,2"], 2, "expected y,x"),
        (["--box", "0,0,1"], 2, "expected x1,y1,x2,y2"),
        (["--box", "0,0,nan,1"], 2, "expected x1,y1,x2,y2"),
        (["--box", "0,0,.,1"], 2, "expected x1,y1,x2,y2"),
        (["--box", "0.5,0,0.5,1"], 1, "expected 0 <= x1 < x2 <= 1"),
        (["--png", "{tmp}/a.png"], 2, "--png needs --shards"),
        (["--shards", "{tmp}/nothing-*.tar"], 1, "the pattern matches no file"),
        (["--shards", "{tmp}/other-9.tar"], 1, "--shards lacks train-0.tar, which holds 'g0/img000'; given: 'other-9'"),
        (["--shards", "s3://bucket/train-0.tar"], 1, "shards are read from local paths"),
    ],
)
def test_mistakes_are_one_clear_line(
    made: tuple[Path, str], tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    write_tar(tmp_path / "other-9.tar", [("a.jpg", b"")])
    result = show(made[0], "g0/img000", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.exit_code == status
    assert message in result.output
    assert len(result.output.strip().splitlines()) == (1 if status == 1 else 4)


@pytest.mark.parametrize("option", [["--cell", "0,0"], ["--box", "0,0,1,1"], ["--png", "x.png"], ["--html", "x.html"]])
def test_undecodable_row_says_why_it_has_no_map(made: tuple[Path, str], option: list[str]) -> None:
    result = show(made[0], shard_keys(0)[BAD_ROW], "--shards", made[1], *option)
    assert result.exit_code == 1
    assert "was undecodable and has no label map: damaged JPEG: <b>" in result.output


def test_options_of_an_image_need_its_key(made: tuple[Path, str]) -> None:
    for arguments in (["--cell", "0,0"], ["train-0", "--box", "0,0,1,1"]):
        result = show(made[0], *arguments)
        assert result.exit_code == 2
        assert "needs the key of an image" in result.output


@pytest.mark.parametrize("size", [1, 4000])
def test_another_image_under_the_same_key_is_refused(made: tuple[Path, str], tmp_path: Path, size: int) -> None:
    jpeg = make_jpeg(77, width=WIDTH, height=HEIGHT)
    shard = write_tar(tmp_path / "train-0.tar", [(f"{key}.jpg", jpeg[:size]) for key in shard_keys(0)])
    result = show(made[0], "g0/img003", "--shards", shard)
    assert result.exit_code == 1
    assert "train-0.tar: does not hold the image that was annotated as 'g0/img003'" in result.output


def test_hostile_names_never_reach_the_terminal(made: tuple[Path, str]) -> None:
    text = show(made[0], EVIL_KEY, "--shards", made[1], "--cell", "0,0", "--box", BOX_TEXT).output
    assert not any(not char.isprintable() and char != "\n" for char in text)
    assert "\\x1b[31m" in text


def test_image_is_read_at_its_own_offset(made: tuple[Path, str]) -> None:
    view = RowView.find(LabelStore.open(made[0]), "g1/img004", [made[1]], 1.0)
    assert view.image is not None
    assert np.array_equal(view.image, decode_image(make_jpeg(104, width=WIDTH, height=HEIGHT)))
