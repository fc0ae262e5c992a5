"""The figures of docs/explanation.md are made by a command, and the page's numbers are those that it prints."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.figures.__main__ import main
from benchmarks.figures.squash import CENTRE, seen_on_centre, wide_picture
from benchmarks.studies.rest import REST
from tests.builders.paths import DOCS

PAGE = " ".join((DOCS / "explanation.md").read_text().split())
FILES = ("crop_to_target.png", "squash_or_centre.png", "rest.png")
ROUNDING = 0.0015  # another processor may round the last digit otherwise


def run(folder: Path, scenes: int) -> str:
    done = CliRunner().invoke(main, ["--out", str(folder), "--scenes", str(scenes)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """What the groups of a pattern hold, which must be there."""
    match = re.search(pattern, text)
    assert match, pattern
    return [float(number.replace(",", "")) for number in match.groups()]


def check_drawn(printed: str) -> None:
    """What is seen in the figures, however many scenes are measured."""
    for shown, quoted in (
        (r"6: logit \S+ target ([\d.]+)", r"softmax, ([\d.]+) for 6"),
        (r"8: logit \S+ target ([\d.]+)", r"and ([\d.]+) for 8"),
        (r"cells with weight: (\d+) of (\d+)", r"(\d+) of the (\d+) cells"),
        (r"squash: 7: ([\d.]+),", r"the crop's box gives ([\d.]+) to the 7"),
        (r"centre crop: 6: ([\d.]+),", r"gives ([\d.]+) to a 6"),
    ):
        assert numbers(quoted, PAGE) == pytest.approx(numbers(shown, printed), abs=ROUNDING), quoted


def test_command_writes_the_figures_that_the_page_describes(tmp_path: Path) -> None:
    check_drawn(run(tmp_path, scenes=6))
    for name in FILES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert f"](images/{name})" in PAGE


@pytest.mark.slow
def test_page_quotes_what_the_command_measures(tmp_path: Path) -> None:
    printed = run(tmp_path, scenes=400)
    for rest in REST:
        shown = numbers(f"{rest}, logits: distance.*?" + ", ".join(rf"K {k}: ([\d.]+)" for k in range(1, 6)), printed)
        quoted = numbers(rf"\| {rest} \| " + r" \| ".join([r"([\d.]+)"] * 5), PAGE)
        assert quoted == pytest.approx(shown, abs=ROUNDING)
    for shown_by, quoted_by in (
        (r"wide pictures: (\d+) of (\d+) pairs", r"in (\d+) such pictures \(of (\d+) pairs"),
        (r"\nsquash: a digit has ([\d.]+)", r"the digit is ([\d.]+) with squash"),
        (r"\ncentre crop: a digit has ([\d.]+)", r"and ([\d.]+) with the same box"),
        (r"middle: squash: a digit has ([\d.]+)", r"against squash's ([\d.]+)"),
        (
            r"corrected: a digit has ([\d.]+) .*\(([\d,]+) of ([\d,]+) digits",
            r"even better: ([\d.]+) .* only ([\d,]+) of the ([\d,]+) digits",
        ),
    ):  # fmt: skip
        assert numbers(quoted_by, PAGE) == pytest.approx(numbers(shown_by, printed), abs=ROUNDING), quoted_by


def test_figures_in_the_page_are_small() -> None:
    folder = DOCS / "images"
    assert all((folder / name).stat().st_size < 150_000 for name in FILES)


def test_wide_pictures_hold_whole_digits_and_the_same_box_lies_elsewhere_on_the_centre() -> None:
    picture = wide_picture(54)
    assert picture is not None
    assert picture.image.shape == (120, 180, 3)
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in picture.truth.boxes)
    assert seen_on_centre((0, 0, 1, 1)) == pytest.approx(CENTRE)
