"""Draws and annotates the scenes that all arms share."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.demo.stages import annotate_digits, make_shards
from pipelines.digits.shards import SceneTruth, read_truth, write_shards
from store.errors import RunFolderError

TEST_SCENES, TEST_SEED = 2000, 1  # of the digits kept for validation, which neither teacher nor students are trained on


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Shards to train and to test on, the label store of the former, and the digits of the test scenes."""

    training: list[Path]
    labels: Path
    test: list[Path]
    truths: list[SceneTruth]  # of the test scenes


def make_data(out: Path) -> Data:
    """Draw and annotate the scenes that are missing in `out`.

    Raises:
        RunFolderError: `out` has another number of test scenes.
        RelabelError: as `annotate_digits`.
    """
    training, _ = make_shards(out)
    labels = out / "labels.zarr"
    annotate_digits(training, labels)
    test = write_shards(out / "test", "val", TEST_SCENES, 1, TEST_SEED)
    truths = [truth for shard in test for truth in read_truth(shard)]
    if len(truths) != TEST_SCENES:
        raise RunFolderError(f"{out}: has {len(truths):,} test scenes, not {TEST_SCENES:,}; choose another folder")
    return Data(training=training, labels=labels, test=test, truths=truths)
