"""The axes of a real network's maps, from few photographs; skipped where they are absent."""

import itertools
from pathlib import Path

import pytest

from annotator.published.axes import find_axes
from annotator.published.crops import ask_teacher
from annotator.published.exporting import export_maps, plan_export
from annotator.published.files import Axes
from annotator.published.origin import Origin
from annotator.published.source import open_source
from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from store.reader import LabelStore
from store.shards.images import read_image
from store.shards.index import index_shard
from tests.builders.paths import REAL
from tests.builders.published import SilentExport
from tests.builders.stores import write_tar
from tests.builders.teachers import run_annotator

SHARD = REAL / "imagenet-sample-0000.tar"
FEW = 6
HALF = (0.5, 0.5, 0.5)

pytestmark = pytest.mark.skipif(not REAL.exists(), reason="the real photographs and teacher are not here")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(
        TeacherSettings(
            name="mobilenetv2_100",
            args={"pad_type": "same"},
            checkpoint=REAL / "mobilenetv2_100_same.fp16.safetensors",
            input_size=(480, 480),
            mean=HALF,
            std=HALF,
            device="cpu",
        )
    )


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher) -> Path:
    """A shard of six photographs and their maps, exported in either order."""
    folder = tmp_path_factory.mktemp("few")
    samples = itertools.islice(index_shard(SHARD).samples, FEW)
    shard = write_tar(folder / "few.tar", [(f"{s.key}.jpg", read_image(SHARD, s)) for s in samples])
    run_annotator([shard], folder / "labels.zarr", teacher, batch_size=FEW)
    for axes in ("yx", "xy"):
        plan = plan_export(LabelStore.open(folder / "labels.zarr"), folder / axes, overwrite=False)
        export_maps(plan, folder / axes, axes=axes, reporter=SilentExport())
    return folder


@pytest.mark.parametrize("axes", ["yx", "xy"])
def test_six_photographs_show_the_order_of_their_maps(few: Path, teacher: Teacher, axes: Axes) -> None:
    origin = Origin(input_size=(480, 480), mean=HALF, std=HALF)
    found, verdict = find_axes([few / "few.tar"], open_source(few / axes), origin, lambda: teacher)
    assert (found, verdict.total) == (axes, FEW)
    assert verdict.sure > 0.9


def test_maps_of_other_photographs_show_no_order(few: Path, teacher: Teacher, tmp_path: Path) -> None:
    files = sorted((few / "yx").glob("*/*.pt"))
    for file, other in zip(files, files[1:] + files[:1], strict=True):
        target = tmp_path / file.relative_to(few / "yx")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(other.read_bytes())
    preprocessing = Origin(input_size=(480, 480), mean=HALF, std=HALF).preprocessing()
    verdict = ask_teacher([few / "few.tar"], open_source(tmp_path), teacher, preprocessing, num_classes=1000)
    assert verdict.axes is None
