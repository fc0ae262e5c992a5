"""The studies behind docs/published_maps.md, on a small teacher and small images."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.studies import axes, centre
from tests.builders.published import write_map
from tests.builders.stores import make_jpeg, write_tar
from tests.builders.teachers import save_weights


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder of maps, and the arguments for their images and a teacher."""
    folder = tmp_path_factory.mktemp("studies")
    shard = write_tar(folder / "a.tar", [(f"x/{i}.jpg", make_jpeg(i, width=120, height=90)) for i in range(6)])
    for i in range(6):
        write_map(folder / "maps", f"x/{i}", seed=i)
    weights = save_weights(folder / "weights.safetensors")
    teacher = ["--teacher", "test_resnet", "--checkpoint", str(weights), "--num-classes", "12", "--device", "cpu"]
    return folder / "maps", ["--shards", str(shard), *teacher, "--input-size", "96", "--mean", "0.5", "--std", "0.5"]


def test_axes_study_counts_verdicts_of_few_images(given: tuple[Path, list[str]]) -> None:
    maps, arguments = given
    result = CliRunner().invoke(axes.main, [str(maps), *arguments, "--draws", "20"])
    assert result.exit_code == 0, result.output
    rows = [line.split("|") for line in result.output.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows] == ["images", "4", "5", "6"]
    assert rows[-1][2].strip() in ("0.0%", "100.0%")  # each draw is of all six images


def test_centre_study_divides_crops_by_what_the_map_covers(given: tuple[Path, list[str]]) -> None:
    result = CliRunner().invoke(centre.main, [*given[1], "--crops", "4", "--crop-size", "32"])
    assert result.exit_code == 0, result.output
    rows = [[part.strip() for part in line.split("|")] for line in result.output.splitlines() if line.startswith("| ")]
    numbers = {row[1]: row[2] for row in rows}
    assert numbers["drawn in the centre"] == numbers["drawn everywhere, taken for boxes of the map"] == "24"


def test_comparison_is_the_cross_entropy_under_the_teacher_s_probabilities() -> None:
    target, answer = np.array([0.5, 0.25, 0.25], np.float32), np.array([0.0, 1.0, 0.0], np.float32)
    entropy, same = centre.compare(target, answer)
    assert entropy == pytest.approx(np.log(4))
    assert same == 0
