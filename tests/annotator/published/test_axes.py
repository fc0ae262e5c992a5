"""The order of the maps' cells: decided on evidence, or an error."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.published.axes import find_axes
from annotator.published.boxes import ask_boxes, best_box, prefers_yx
from annotator.published.crops import CROP, cut, random_boxes
from annotator.published.files import PublishedMap
from annotator.published.origin import Origin
from annotator.published.source import open_source
from annotator.published.verdict import Verdict, count_votes, mirrored, spread
from store.errors import SettingsError
from store.maps.types import Box
from tests.builders.published import write_map
from tests.builders.stores import make_jpeg, make_members, write_tar

TOP_RIGHT: Box = (0.5, 0.0, 1.0, 0.5)


def seen_at(box: Box, *, label: int = 7, cells: int = 8) -> PublishedMap:
    """A map, read as yx, that shows one class within the box and others elsewhere."""
    x1, y1, x2, y2 = (round(side * cells) for side in box)
    classes = np.tile(np.array([1, 2], np.uint16)[:, None, None], (1, cells, cells))
    classes[0, y1:y2, x1:x2] = label
    scores = np.tile(np.array([9, 1], np.float16)[:, None, None], (1, cells, cells))
    return PublishedMap(classes, scores)


def test_box_prefers_the_order_that_shows_its_class_on_it() -> None:
    published = seen_at(TOP_RIGHT)
    assert prefers_yx(published, TOP_RIGHT, 7, 10) > 0.9
    assert prefers_yx(published.turned(), TOP_RIGHT, 7, 10) < -0.9
    assert prefers_yx(published, (0.25, 0.25, 0.75, 0.75), 7, 10) == 0  # its own mirror image


@pytest.mark.parametrize(
    ("for_yx", "for_xy", "axes"),
    [(11, 0, "yx"), (0, 11, "xy"), (10, 0, None), (411, 19, "yx"), (230, 200, None), (0, 0, None), (1, 0, None)],
)
def test_verdict_is_given_only_where_chance_cannot_explain_the_votes(
    for_yx: int, for_xy: int, axes: str | None
) -> None:
    verdict = Verdict(unit="boxes", for_yx=for_yx, for_xy=for_xy)
    assert verdict.axes == axes
    assert ("undecided" in str(verdict)) == (axes is None)


def test_verdict_gives_votes_and_p() -> None:
    assert str(Verdict(unit="boxes", for_yx=411, for_xy=19)) == "axes: yx (411 of 430 boxes agree, p < 1e-6)"
    assert str(Verdict(unit="images", for_yx=1, for_xy=14)) == "axes: xy (14 of 15 images agree, p = 0.00098)"
    undecided = "axes undecided (6 of 10 boxes for yx, 4 for xy, p = 0.75)"
    assert str(Verdict(unit="boxes", for_yx=6, for_xy=4)) == undecided


@given(st.integers(0, 60), st.integers(0, 60))
def test_p_is_the_two_sided_chance_of_so_lopsided_a_vote(for_yx: int, for_xy: int) -> None:
    total, lopsided = for_yx + for_xy, abs(for_yx - for_xy)
    ways = sum(math.comb(total, k) for k in range(total + 1) if abs(2 * k - total) >= lopsided)
    assert Verdict(unit="boxes", for_yx=for_yx, for_xy=for_xy).p == pytest.approx(ways / 2**total)


def test_without_a_preference_there_is_no_vote() -> None:
    verdict = count_votes([1.0, -1.0, 0.0, math.nan, 2.0], "boxes")
    assert (verdict.for_yx, verdict.for_xy) == (2, 1)


def test_crops_are_off_the_diagonal_in_pairs() -> None:
    boxes = random_boxes(np.random.default_rng(0))
    for box in boxes:
        x1, y1, x2, y2 = box
        assert 0 <= min(box) <= max(box) <= 1
        assert x2 - x1 == pytest.approx(CROP)
        assert x1 >= y2 - 1e-9 or y1 >= x2 - 1e-9
        assert mirrored(box) in boxes


def test_crop_holds_the_pixels_of_its_box_in_an_image_that_is_not_square() -> None:
    rows, columns = np.mgrid[:100, :200].astype(np.uint8)
    crop = cut(np.stack([rows, columns, rows], axis=2), (0.5, 0.1, 0.9, 0.5))
    assert (crop[0, 0].tolist(), crop[-1, -1].tolist()) == ([10, 100, 10], [49, 179, 49])


@given(st.integers(1, 50), st.integers(1, 50))
def test_spread_takes_different_items_from_end_to_end(length: int, count: int) -> None:
    taken = list(spread(range(length), count))
    assert len(set(taken)) == len(taken) == min(length, count)
    assert taken[0] == 0
    assert length - 1 - taken[-1] < math.ceil(length / len(taken))


BOX = [0.5, 0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[" * 100_000, b"[]", b"null", b"7", b"\xff", b'{"boxes": 3}', b'{"caption": "a cat"}',
        *(
            json.dumps(content).encode()
            for content in (
                {"boxes": [BOX], "labels": []}, {"boxes": [[0, 0, 1]], "labels": [1]},
                {"boxes": [[120, 0, 200, 50]], "labels": [1]}, {"boxes": [["a", 0, 1, 1]], "labels": [1]},
                {"boxes": [[0.5, 0, 0.5, 1]], "labels": [1]}, {"boxes": [BOX], "labels": [12]},
                {"boxes": [BOX], "labels": [-1]}, {"boxes": [BOX], "labels": [True]},
                {"boxes": [[10**400, 0, 1, 1]], "labels": [1]}, {"boxes": [[0, 0, 1e-200, 1e-200]], "labels": [1]},
                {"boxes": [[float("nan")] * 4], "labels": [1]}, {"boxes": {"a": 1}, "labels": {"b": 2}},
            )
        ),
    ],
)  # fmt: skip
def test_json_that_holds_no_boxes_is_no_evidence(content: bytes) -> None:
    assert best_box(content, 12) is None


def test_box_that_overlaps_its_mirror_image_least_is_chosen() -> None:
    content = {"boxes": [[0, 0, 1, 1], BOX, [0.3, 0.2, 0.7, 0.6]], "labels": [1, 2, 3]}
    assert best_box(json.dumps(content).encode(), 12) == ((0.5, 0.0, 1.0, 0.5), 2)


def shard_with_boxes(path: Path, count: int) -> Path:
    members = []
    for i in range(count):
        content = json.dumps({"boxes": [BOX], "labels": [i % 12]}).encode()
        members += [(f"a/{i:03}.jpg", make_jpeg(i)), (f"a/{i:03}.json", content)]
    return write_tar(path, members)


def test_maps_of_other_images_leave_the_axes_undecided(tmp_path: Path) -> None:
    shard = shard_with_boxes(tmp_path / "a.tar", 60)
    for i in range(60):
        write_map(tmp_path / "root", f"a/{i:03}", seed=i)
    source = open_source(tmp_path / "root")
    assert ask_boxes([shard], source, num_classes=12).total > 40
    with pytest.raises(SettingsError, match=r"axes undecided \(\d+ of \d+ boxes for yx.*pass --teacher NAME .*--axes"):
        find_axes([shard], source, Origin(num_classes=12), None)


def test_without_boxes_or_a_teacher_there_is_an_error_and_no_guess(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(3))
    write_map(tmp_path / "root", "0/img0000")
    with pytest.raises(SettingsError, match=r"the shards have no boxes: pass --teacher NAME .* --axes xy"):
        find_axes([shard], open_source(tmp_path / "root"), Origin(num_classes=12), None)
