"""Pooled targets against the teacher's own answers on real photographs; skipped where they are absent."""

import pytest
import torch
from torch import Tensor

from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from benchmarks.studies.targets import ask_teacher, compare, draw_crops
from store.reader import LabelStore
from tests.builders.paths import REAL
from tests.builders.teachers import run_annotator
from trainer.targets.targets import LabelBatch

SHARD = REAL / "imagenet-sample-0000.tar"
MAP_PIXELS, CROP_PIXELS = 480, 224  # 15 x 15 cells; what the teacher was trained at

pytestmark = pytest.mark.skipif(not REAL.exists(), reason="the real photographs and teacher are not here")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(
        TeacherSettings(
            name="mobilenetv2_100",
            args={"pad_type": "same"},
            checkpoint=REAL / "mobilenetv2_100_same.fp16.safetensors",
            input_size=(MAP_PIXELS, MAP_PIXELS),
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def answered(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, LabelBatch]:
    """The teacher's answers to 200 random crops of 64 photographs, and the photographs' labels."""
    labels = tmp_path_factory.mktemp("real") / "labels.zarr"
    summary = run_annotator([SHARD], labels, teacher, batch_size=16, workers=1)
    assert (summary.images, summary.failures) == (64, {})
    pixels, batch = draw_crops([SHARD], LabelStore.open(labels), crops=200, size=CROP_PIXELS, seed=0)
    return ask_teacher(teacher, pixels), batch


def test_a_crop_s_target_is_nearer_to_the_teacher_s_answer_than_that_of_another_box(
    answered: tuple[Tensor, LabelBatch],
) -> None:
    found = compare(*answered, 1.0)
    ours = found["the crop's box"]
    for other in ("x and y swapped", "the whole map"):
        assert ours.cross_entropy < found[other].cross_entropy - 0.05
        assert ours.same_class > found[other].same_class
    assert ours.same_class > 0.5


def test_no_target_is_nearer_than_the_answer_itself(answered: tuple[Tensor, LabelBatch]) -> None:
    answers, batch = answered
    entropy = float(-(answers * answers.clamp(min=1e-30).log()).sum(1).mean())
    assert torch.isfinite(answers).all()
    assert all(found.cross_entropy > entropy for found in compare(answers, batch, 1.0).values())
