import json
import tarfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from safetensors.torch import load_file, save_file

from pipelines.digits import shards
from pipelines.digits.scenes import DIGIT_SIZES, POOL_NAMES, SCENE_SIZE, PoolName, Scene, draw_scene, load_pool
from pipelines.digits.shards import SceneTruth, write_shards
from pipelines.digits.teacher import (
    INPUT_SIZE,
    TEACHER_WEIGHTS,
    box_accuracy,
    image_accuracy,
    label_maps,
    load_teacher,
    normalise,
    stack_images,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(7, index, load_pool("val")) for index in range(40)]


def test_pools_are_disjoint_and_together_hold_every_digit() -> None:
    sources = np.concatenate([load_pool(name).sources for name in POOL_NAMES])
    assert np.array_equal(np.sort(sources), np.arange(1797))


@pytest.mark.parametrize("name", POOL_NAMES)
def test_each_pool_holds_every_class_about_equally(name: PoolName) -> None:
    pool = load_pool(name)
    shares = np.bincount(pool.labels, minlength=10) / len(pool)
    assert shares.min() > 0.09
    assert shares.max() < 0.11


def test_pools_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_pool("val").glyphs[0] = 0


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of teacher, train, val"):
        load_pool("test")


def test_a_scene_depends_on_nothing_but_seed_index_and_pool(scenes: list[Scene]) -> None:
    again = draw_scene(7, 3, load_pool("val"))
    assert np.array_equal(again.image, scenes[3].image)
    assert (again.label, again.digits) == (scenes[3].label, scenes[3].digits)


@pytest.mark.parametrize(("seed", "index", "name"), [(8, 3, "val"), (7, 4, "val"), (7, 3, "train")])
def test_scenes_differ_by_seed_index_and_pool(seed: int, index: int, name: PoolName, scenes: list[Scene]) -> None:
    assert not np.array_equal(draw_scene(seed, index, load_pool(name)).image, scenes[3].image)


def test_scenes_use_digits_of_their_own_pool_only(scenes: list[Scene]) -> None:
    used = {digit.source for scene in scenes for digit in scene.digits}
    assert used <= set(load_pool("val").sources.tolist())


def test_scenes_hold_one_to_four_digits_and_are_labelled_by_one_of_them(scenes: list[Scene]) -> None:
    assert {len(scene.digits) for scene in scenes} == {1, 2, 3, 4}
    assert all(scene.label in [digit.label for digit in scene.digits] for scene in scenes)
    # Not always the first one's: the label is chosen at random.
    assert any(scene.label != scene.digits[0].label for scene in scenes)


def test_boxes_lie_inside_the_scene_and_have_the_promised_sizes(scenes: list[Scene]) -> None:
    boxes = np.array([digit.box for scene in scenes for digit in scene.digits])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    sizes = np.rint((boxes[:, 2:] - boxes[:, :2]).max(axis=1) * SCENE_SIZE)
    assert sizes.min() >= DIGIT_SIZES[0]
    assert sizes.max() <= DIGIT_SIZES[1]


def test_boxes_of_a_scene_never_overlap(scenes: list[Scene]) -> None:
    pairs = [pair for scene in scenes for pair in combinations([digit.box for digit in scene.digits], 2)]
    assert len(pairs) > 50
    for a, b in pairs:
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_more_digits_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="digits_max 5: expected 1 to 4"):
        draw_scene(0, 0, load_pool("val"), digits_max=5)


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_shards_written_twice_have_the_same_bytes(tmp_path: Path) -> None:
    first = write_shards(tmp_path / "a", "val", 5, 2, seed=3)
    second = write_shards(tmp_path / "b", "val", 5, 2, seed=3)
    assert [path.name for path in first] == ["digits-val-0000.tar", "digits-val-0001.tar"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with tarfile.open(first[0]) as tar:
        assert {member.mtime for member in tar} == {0}


def test_shards_hold_image_label_and_boxes_of_every_scene(tmp_path: Path, scenes: list[Scene]) -> None:
    members: dict[str, bytes] = {}
    for path in write_shards(tmp_path, "val", 5, 2, seed=7):
        members |= _members(path)
    keys = [f"val-{index:06d}" for index in range(5)]
    assert sorted(members) == [f"{key}.{kind}" for key in keys for kind in ("cls", "jpg", "json")]
    for key, scene in zip(keys, scenes, strict=False):
        notes = json.loads(members[f"{key}.json"])
        assert notes["boxes"] == [list(digit.box) for digit in scene.digits]
        assert int(members[f"{key}.cls"]) == scene.label
        assert scene.label in notes["labels"]
        pixels = simplejpeg.decode_jpeg(members[f"{key}.jpg"]).astype(np.int64)
        # Noise is what JPEG loses; swapped channels or another scene differ by far more.
        assert np.abs(pixels - scene.image).mean() < 8


def test_a_shard_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "digits-val-0000.tar").write_bytes(b"kept")
    write_shards(tmp_path, "val", 2, 2, seed=3)
    assert (tmp_path / "digits-val-0000.tar").read_bytes() == b"kept"


def test_an_interrupted_shard_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, "val", 2, 1, seed=3)
    assert list(tmp_path.iterdir()) == []


def test_empty_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards_count 3: expected 1 to 2"):
        write_shards(tmp_path, "val", 2, 3, seed=3)


def test_shipped_weights_load_strictly_and_give_15_by_15_cells() -> None:
    model = load_teacher()
    features = model.forward_features(torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE))  # type: ignore[operator]
    assert features.shape[2:] == (15, 15)
    assert TEACHER_WEIGHTS.stat().st_size < 1_000_000


def test_weights_with_a_missing_tensor_are_refused(tmp_path: Path) -> None:
    state = load_file(TEACHER_WEIGHTS)
    del state["fc.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(RuntimeError, match=r"Missing key.*fc\.bias"):
        load_teacher(tmp_path / "less.safetensors")


def test_mean_over_the_cells_is_the_teachers_own_output(scenes: list[Scene]) -> None:
    model = load_teacher()
    with torch.inference_mode():
        logits = model(normalise(stack_images(scenes[:4]))).numpy()
    np.testing.assert_allclose(label_maps(model, scenes[:4]).mean(axis=(1, 2)), logits, rtol=1e-3, atol=1e-3)


def test_teacher_recognises_digits_it_has_never_seen() -> None:
    held_out = [draw_scene(11, index, load_pool("val"), digits_max=1) for index in range(100)]
    assert image_accuracy(load_teacher(), held_out) > 0.9


def test_teacher_lights_up_the_cells_of_every_digit_of_a_scene(scenes: list[Scene]) -> None:
    assert box_accuracy(load_teacher(), [scene for scene in scenes if len(scene.digits) > 1]) > 0.9


def test_digits_that_a_box_cuts_touch_it_and_are_not_inside() -> None:
    boxes = ((0.1, 0.1, 0.4, 0.4), (0.4, 0.1, 0.7, 0.4), (0.6, 0.6, 0.9, 0.9))
    truth = SceneTruth(key="a", labels=(3, 5, 8), boxes=boxes)
    assert truth.labels_inside((0, 0, 0.5, 0.5)) == {3}
    assert truth.labels_touching((0, 0, 0.5, 0.5)) == {3, 5}
    assert truth.labels_touching((0.4, 0, 0.5, 0.6)) == {5}  # edges that meet share no pixel
    assert truth.labels_touching((0, 0, 0.4, 0.6)) == {3}
