"""What a map covers of its image is what its network saw, and a box of the image is the right box of the map."""

import json

import numpy as np
import pytest
import timm.data
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from store.errors import DamagedStoreError, LabelMapError
from store.format.parse import parse_schema
from store.format.schema import CENTRE, MIN_CROP_PCT, Json, Preprocessing, StoreSchema
from store.maps.pooling import KINDS, crop_target, pool_map, softmax
from store.maps.regions import box_on_map, cut_box, cut_image, labelled_region
from store.maps.types import WHOLE_IMAGE, Box, LabelRow
from tests.builders.stores import make_labels, make_schema

IMAGENET = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def centre(crop_pct: float = 0.5, side: int = 64) -> Preprocessing:
    return Preprocessing(mode=CENTRE, crop_pct=crop_pct, input_size=(side, side), **IMAGENET)  # type: ignore[arg-type]


SCHEMA = make_schema(map_size=(4, 6))
CENTRE_SCHEMA = replace(SCHEMA, preprocessing=centre())
SIZE = (100, 200)  # of an image; its labelled region is rows 25 to 75, columns 75 to 125
REGION: Box = (0.375, 0.25, 0.625, 0.75)


def make_row() -> LabelRow:
    labels = make_labels(SCHEMA, 1, with_tail=False)
    return LabelRow(
        key="k", classes=labels.classes[0], scores=labels.scores[0], tail_logsumexp=None, label=3, offset=0, length=0,
        undecodable=None,
    )  # fmt: skip


@pytest.mark.parametrize("size", [(100, 200), (200, 100), (97, 233), (240, 240), (251, 83), (80, 81)])
@pytest.mark.parametrize(("crop_pct", "side"), [(0.875, 64), (0.956, 48), (0.5, 32), (1.0, 64)])
def test_region_is_what_timm_shows_a_network(size: tuple[int, int], crop_pct: float, side: int) -> None:
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    show = timm.data.create_transform((3, side, side), crop_pct=crop_pct, interpolation="bilinear", mean=0, std=1)
    seen = show(Image.fromarray(np.stack([rows, columns, rows], axis=2))).numpy() * 255
    x1, y1, x2, y2 = labelled_region(centre(crop_pct, side), height, width)
    middle = side // 2  # of the other axis, away from the corners
    for low, high, pixels, line in ((y1, y2, height, seen[0, :, middle]), (x1, x2, width, seen[1, middle])):
        centres = low * pixels + (np.arange(side) + 0.5) * (high - low) * pixels / side - 0.5
        assert np.abs(line - centres)[1:-1].max() < 1.5  # the resized image has whole pixels


@given(
    st.tuples(*[st.floats(0, 1)] * 4).filter(lambda sides: sides[0] < sides[1] and sides[2] < sides[3]),
    st.tuples(*[st.floats(0, 1)] * 4).filter(lambda sides: sides[0] < sides[1] and sides[2] < sides[3]),
)
def test_cut_box_is_the_common_part_seen_from_the_region(box_sides: Box, region_sides: Box) -> None:
    box, region = ((sides[0], sides[2], sides[1], sides[3]) for sides in (box_sides, region_sides))
    cut = cut_box(box, region)
    apart = min(box[2], region[2]) <= max(box[0], region[0]) or min(box[3], region[3]) <= max(box[1], region[1])
    assert (cut is None) == apart
    assert cut_box(box, WHOLE_IMAGE) == box
    if cut is not None:
        assert 0 <= cut[0] <= cut[2] <= 1
        assert 0 <= cut[1] <= cut[3] <= 1
        for at, pick in enumerate((max, max, min, min)):
            low, high = region[at % 2], region[at % 2 + 2]
            assert low + cut[at] * (high - low) == pytest.approx(pick(box[at], region[at]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "original"])
def test_target_of_a_crop_is_that_of_its_part_on_the_map(kind: str) -> None:
    row = make_row()
    for box, on_map in (
        ((0.4, 0.3, 0.6, 0.7), (0.1, 0.1, 0.9, 0.9)),
        ((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5)),  # partly outside
        (WHOLE_IMAGE, WHOLE_IMAGE),
    ):
        found = crop_target(CENTRE_SCHEMA, row, box=box, kind=kind, image_size=SIZE)  # type: ignore[arg-type]
        expected = crop_target(SCHEMA, row, box=on_map, kind=kind)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    box = (0.4, 0.3, 0.6, 0.7)
    squashed = softmax(pool_map(row.classes, row.scores, num_classes=20, box=box))
    assert not np.allclose(crop_target(CENTRE_SCHEMA, row, box=box, image_size=SIZE), squashed)


def test_crop_of_which_the_map_covers_nothing_is_refused() -> None:
    with pytest.raises(
        LabelMapError, match=r"box \(0.0, 0.0, 0.3, 1.0\): outside the centre .* 0.375, 0.25, 0.625, 0.75"
    ):
        crop_target(CENTRE_SCHEMA, make_row(), box=(0.0, 0.0, 0.3, 1.0), image_size=SIZE)
    with pytest.raises(LabelMapError, match="expected 0 <= x1 < x2 <= 1"):
        box_on_map(centre(), (0.5, 0.5, 0.4, 1.2), SIZE)


def test_crop_without_the_image_s_size_is_refused_unless_it_is_the_whole_image() -> None:
    with pytest.raises(LabelMapError, match=r"cover the centre of each image, which depends on its size; .*--shards"):
        crop_target(CENTRE_SCHEMA, make_row(), box=(0.0, 0.0, 0.5, 1.0))
    np.testing.assert_array_equal(crop_target(CENTRE_SCHEMA, make_row()), crop_target(SCHEMA, make_row()))


def test_image_is_cut_to_the_pixels_of_the_region() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    assert labelled_region(centre(), *SIZE) == REGION
    np.testing.assert_array_equal(cut_image(image, centre()), image[25:75, 75:125])
    assert cut_image(image, SCHEMA.preprocessing).shape == image.shape


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (2, 3), (1, 2)])
def test_cut_image_has_at_least_one_pixel(size: tuple[int, int]) -> None:
    for crop_pct in (0.01, 0.3, 0.875, 1.0):
        assert min(cut_image(np.zeros((*size, 3), np.uint8), centre(crop_pct)).shape) >= 1


def stored(schema: StoreSchema, **view: object) -> Json:
    attributes: Json = json.loads(json.dumps(schema.to_attributes()))
    attributes["view"] |= view
    return attributes


def test_region_is_part_of_the_format_and_old_stores_stay_as_they_were() -> None:
    attributes = stored(CENTRE_SCHEMA)
    assert (attributes["view"]["mode"], attributes["view"]["crop_pct"]) == ("centre", 0.5)
    assert parse_schema(attributes, "here") == CENTRE_SCHEMA
    assert "crop_pct" not in stored(SCHEMA)["view"]
    assert "preprocessing: " in SCHEMA.differences(CENTRE_SCHEMA)[0]


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        ({"crop_pct": 1.5}, r"crop_pct from 0\.01 to 1, not 1\.5"),
        ({"crop_pct": MIN_CROP_PCT / 2}, r"crop_pct from 0\.01 to 1"),
        ({"crop_pct": 5e-324}, r"crop_pct from 0\.01 to 1"),
        ({"crop_pct": None}, "crop_pct"),
        ({"input_size": [64, 32]}, "input size that is square"),
        ({"mode": "squash"}, "crop_pct belongs to the mode 'centre'"),
        ({"mode": "corner"}, "should be 'squash' or 'centre', found 'corner'"),
    ],
)
def test_regions_that_mean_nothing_are_refused(view: Json, problem: str) -> None:
    with pytest.raises(DamagedStoreError, match=problem):
        parse_schema(stored(CENTRE_SCHEMA, **view), "here")
    without = stored(CENTRE_SCHEMA)
    del without["view"]["crop_pct"]
    with pytest.raises(DamagedStoreError, match="a centre needs a crop_pct"):
        parse_schema(without, "here")
