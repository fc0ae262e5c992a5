"""The order of the maps' cells: decided on evidence, or an error."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.input.decode import squash
from annotator.published.axes import find_axes
from annotator.published.boxes import ask_boxes, best_box, prefers_yx
from annotator.published.crops import CROP, cut, maps_with_image, random_boxes
from annotator.published.files import PublishedMap, dump_map
from annotator.published.origin import Origin
from annotator.published.source import open_source
from annotator.published.verdict import Verdict, count_votes, mirrored, spread
from store.errors import SettingsError
from store.maps.regions import cut_image, labelled_region
from store.maps.types import Box
from store.shards.decode import decode_image
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
    ("votes", "axes"),
    [
        ([1.0] * 4, "yx"), ([-0.001] * 4, "xy"), ([1.0] * 3, None), ([], None),
        ([1.0, 2, 3, 1, 2, -1, 4, 2], "yx"), ([-1.0, -2, -3, -1, -2, 1, -4, -2], "xy"),
        ([9.0, 1, 1, -1], None),  # one image alone is not enough, however much it weighs
        ([5.0, 5, 5, 5, -1, -1, -1, -1, -1], "yx"),  # the sum decides, not the majority
        ([1.0] * 110 + [-1.0] * 90, None),  # sure by chance, but too even for maps of these images
        ([1.0] * 140 + [-1.0] * 60, "yx"),
    ],
)  # fmt: skip
def test_order_is_found_where_the_sum_of_the_votes_is_sure(votes: list[float], axes: str | None) -> None:
    verdict = Verdict(unit="boxes", votes=tuple(votes))
    assert verdict.axes == axes
    assert ("undecided" in str(verdict)) == (axes is None)


def test_verdict_says_how_sure_it_is() -> None:
    decided = Verdict(unit="boxes", votes=(2.0,) * 411 + (-1.0,) * 19)
    assert str(decided) == "axes: yx (more than 99.9 % sure: 411 of 430 boxes agree)"
    assert str(Verdict(unit="images", votes=(-1.0,) * 4)) == "axes: xy (97.7 % sure: 4 of 4 images agree)"
    undecided = Verdict(unit="boxes", votes=(1.0,) * 6 + (-1.0,) * 4)
    assert str(undecided) == "axes undecided (6 of 10 boxes for yx, 4 for xy; 73.6 % sure)"
    few = Verdict(unit="images", votes=(1.0,) * 3)
    assert str(few) == "axes undecided (3 of 3 images for yx, 0 for xy; at least 4 are needed)"


@given(st.lists(st.floats(-1e9, 1e9).filter(bool), max_size=40), st.sampled_from([1e-300, 1e-3, 1e3, 1e290]))
def test_sureness_does_not_depend_on_the_unit_or_the_names_of_the_axes(votes: list[float], unit: float) -> None:
    verdict = count_votes(votes, "boxes")
    turned, scaled = count_votes([-vote for vote in votes], "boxes"), count_votes([vote * unit for vote in votes], "b")
    assert 0.5 <= verdict.sure == turned.sure <= 1
    assert verdict.ratio == -turned.ratio
    if scaled.total == verdict.total:  # none became 0
        assert scaled.ratio == pytest.approx(verdict.ratio, abs=1e-6)


def test_without_a_preference_there_is_no_vote() -> None:
    assert count_votes([1.0, -1.0, 0.0, math.nan, math.inf, 2.0], "boxes").votes == (1, -1, 2)


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


def test_box_is_cut_to_what_the_map_covers_and_left_out_beyond() -> None:
    region = (0.25, 0.0, 0.75, 1.0)
    content = {"boxes": [[0.0, 0.0, 0.2, 0.1], [0.0, 0.0, 0.5, 0.25], [0.25, 0.25, 0.75, 0.75]], "labels": [1, 2, 3]}
    assert best_box(json.dumps(content).encode(), 12, region) == ((0.0, 0.0, 0.5, 0.25), 2)
    assert best_box(json.dumps({"boxes": [[0.0, 0.0, 0.25, 1.0]], "labels": [1]}).encode(), 12, region) is None


def test_boxes_are_looked_up_on_the_part_that_maps_cover(tmp_path: Path) -> None:
    on_map = (0.75, 0.0, 1.0, 0.25)
    origin = Origin(num_classes=12, input_size=(64, 64), crop_pct=0.5)
    x1, y1, x2, y2 = labelled_region(origin.preprocessing(), 30, 40)
    box = [x1 + (x2 - x1) * on_map[0], y1, x2, y1 + (y2 - y1) * on_map[3]]
    members = []
    for i in range(6):
        content = json.dumps({"boxes": [box], "labels": [7]}).encode()
        members += [(f"a/{i}.jpg", make_jpeg(i, width=40, height=30)), (f"a/{i}.json", content)]
        write_map(tmp_path / "root", f"a/{i}", dump_map(seen_at(on_map)))
    shard, source = write_tar(tmp_path / "a.tar", members), open_source(tmp_path / "root")
    centre, whole = (
        ask_boxes([shard], source, preprocessing, num_classes=12)
        for preprocessing in (origin.preprocessing(), Origin(num_classes=12).preprocessing())
    )
    assert centre.axes == "yx"
    assert min(centre.votes) > 0.9
    assert max(map(abs, whole.votes), default=0.0) < 0.1  # read as maps of the whole image, they show it elsewhere


def test_teacher_is_shown_the_part_that_maps_cover(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [("a/0.jpg", make_jpeg(0, width=400, height=300))])
    write_map(tmp_path / "root", "a/0")
    preprocessing = Origin(num_classes=12, input_size=(64, 64), crop_pct=0.5).preprocessing()
    [(_, pixels)] = maps_with_image(shard, open_source(tmp_path / "root"), 1, preprocessing, 12)
    whole = decode_image(make_jpeg(0, width=400, height=300))
    np.testing.assert_array_equal(pixels, squash(cut_image(whole, preprocessing), preprocessing))
    assert cut_image(whole, preprocessing).shape == (150, 150, 3)


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
    assert ask_boxes([shard], source, Origin(num_classes=12).preprocessing(), num_classes=12).total > 40
    with pytest.raises(SettingsError, match=r"axes undecided \(\d+ of \d+ boxes for yx.*pass --teacher NAME .*--axes"):
        find_axes([shard], source, Origin(num_classes=12), None)


def test_without_boxes_or_a_teacher_there_is_an_error_and_no_guess(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", make_members(3))
    write_map(tmp_path / "root", "0/img0000")
    with pytest.raises(SettingsError, match=r"the shards have no boxes: pass --teacher NAME .* --axes xy"):
        find_axes([shard], open_source(tmp_path / "root"), Origin(num_classes=12), None)
