"""Which networks may be teachers: timm's families one by one, and what the self-test must notice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from annotator.settings import TeacherSettings
from annotator.teacher.classifier import TimmClassifier
from annotator.teacher.selftest import check_teacher
from annotator.teacher.teacher import Teacher
from store.errors import TeacherError
from tests.builders.families import FAMILIES, LINEAR, Family, table
from tests.builders.paths import DOCS
from tests.builders.teachers import make_teacher, save_weights

PAGE = DOCS / "teachers.md"


def build(folder: Path, name: str, **settings: object) -> Teacher:
    weights = save_weights(folder / "w.safetensors", name)
    chosen = {"checkpoint": weights, "num_classes": 12, "device": "cpu"} | settings
    return Teacher(TeacherSettings(name=name, **chosen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, id=family.model, marks=[] if family.quick else pytest.mark.slow) for family in FAMILIES],
)
def test_cells_of_every_family_are_predictions_or_refused_with_the_reason(tmp_path: Path, family: Family) -> None:
    teacher = build(tmp_path, family.model)
    if family.refused:
        with pytest.raises(TeacherError, match=f"teacher '{family.model}' is not supported: .*{family.refused}"):
            check_teacher(teacher)
        return
    found = check_teacher(teacher)
    assert found.linear == (family.head == LINEAR)
    assert min(found.map_size) > 1
    assert found.correlation is not None
    assert found.correlation > 0.999 or not found.linear


def test_docs_show_the_families_that_are_tested() -> None:
    assert table() in PAGE.read_text()
    assert sum(family.quick and not family.refused for family in FAMILIES) >= 30


@pytest.mark.parametrize(
    ("model", "size", "cells"),
    [
        ("test_resnet", (64, 160), (2, 5)),
        ("test_vit2", (128, 224), (8, 14)),
        ("swin_tiny_patch4_window7_224", (192, 256), (6, 8)),
        ("test_coatnet", (96, 160), (3, 5)),
        ("eva02_tiny_patch14_336", (112, 196), (8, 14)),
        ("sequencer2d_s", (112, 168), (8, 12)),
    ],
)
def test_maps_have_the_images_shape(tmp_path: Path, model: str, size: tuple[int, int], cells: tuple[int, int]) -> None:
    teacher = build(tmp_path, model, input_size=size)
    assert check_teacher(teacher).map_size == cells
    classes, scores, tail_logsumexp = teacher.label_maps(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8), 3)
    assert (classes.shape, scores.shape, tail_logsumexp.shape) == ((2, 3, *cells), (2, 3, *cells), (2, *cells))


def test_digest_does_not_depend_on_the_input_size(tmp_path: Path) -> None:
    sizes = [build(tmp_path, "test_vit2", input_size=size) for size in (None, (128, 224))]
    assert sizes[0].identity == sizes[1].identity


def test_one_image_in_one_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"\(32, 32\) pixels give it a single cell"):
        check_teacher(build(tmp_path, "test_resnet", input_size=(32, 32)))


def test_sizes_that_an_architecture_was_not_made_for_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"'gmlp_ti16_224' does not run at \(64, 64\) pixels: "):
        check_teacher(build(tmp_path, "gmlp_ti16_224", input_size=(64, 64)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.transpose(2, 3), "the upper right corner changes another cell"),
        (lambda f: f.flip(3), "the upper right corner changes another cell"),
        (lambda f: f.flip(2), "the upper right corner changes another cell"),
        (lambda f: f.flip(2, 3), "the upper right corner changes another cell|the lower left corner"),
    ],
)
def test_self_test_notices_maps_that_are_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor], message: str
) -> None:
    right = TimmClassifier.features
    monkeypatch.setattr(TimmClassifier, "features", lambda self, images: change(right(self, images)))
    with pytest.raises(TeacherError, match=f"its cells are not ordered as the image is: {message}"):
        check_teacher(make_teacher(tmp_path, size=(128, 128)))


def test_self_test_notices_a_head_with_swapped_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Teacher.head
    monkeypatch.setattr(Teacher, "head", lambda self, features: right(self, features.transpose(2, 3).flip(2)))
    with pytest.raises(TeacherError, match="a cell of the map differs from the same cell alone"):
        check_teacher(make_teacher(tmp_path, size=(64, 64)))


def test_self_test_notices_a_head_that_looks_at_other_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Teacher.head
    monkeypatch.setattr(
        Teacher, "head", lambda self, features: right(self, features - features.mean(dim=(2, 3), keepdim=True))
    )
    with pytest.raises(TeacherError, match="a cell of the map differs from the same cell alone"):
        check_teacher(make_teacher(tmp_path))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [("fc.bias", "logits that are not finite"), ("conv1.0.weight", "features that are not finite")],
)
def test_self_test_notices_weights_that_are_not_finite(tmp_path: Path, parameter: str, message: str) -> None:
    teacher = make_teacher(tmp_path)
    teacher.network.get_parameter(parameter)[3] = torch.nan
    with pytest.raises(TeacherError, match=f"{message}.*; check its weights"):
        check_teacher(teacher)


@pytest.mark.parametrize("pooling", ["max", "avgmax"])
def test_what_other_pooling_costs_is_measured(tmp_path: Path, pooling: str) -> None:
    found = check_teacher(build(tmp_path, "test_resnet", args={"global_pool": pooling}, input_size=(128, 128)))
    assert not found.linear
    assert "its mean over the cells correlates 0." in found.describe()


def test_reduced_precision_is_tested_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = build(tmp_path, "test_resnet", precision="bfloat16", input_size=(128, 128))
    assert check_teacher(teacher).linear
    right = TimmClassifier.features

    def overflow(self: TimmClassifier, images_B3hw: Tensor) -> Tensor:
        return right(self, images_B3hw) * (torch.inf if torch.is_autocast_enabled("cpu") else 1)

    monkeypatch.setattr(TimmClassifier, "features", overflow)
    with pytest.raises(TeacherError, match="not finite in bfloat16; try --precision float32"):
        check_teacher(teacher)
