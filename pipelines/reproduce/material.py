"""What all arms share: scenes to train on, their label maps, and scenes to test on."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.demo.stages import annotate_digits, make_shards
from pipelines.digits.shards import SceneTruth, read_truth, write_shards
from store.errors import RunFolderError

TEST_SCENES, TEST_SEED = 2000, 1  # drawn of the digits kept for validation, which neither teacher nor student saw


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Where everything lies."""

    training: list[Path]
    labels: Path
    test: list[Path]
    truths: list[SceneTruth]  # of the test scenes


def make_material(out: Path) -> Material:
    """Draw and annotate what is missing below `out`.

    Raises:
        RunFolderError: `out` has other test scenes.
        RelabelError: of `annotate_digits`.
    """
    training, _ = make_shards(out)
    labels = out / "labels.zarr"
    annotate_digits(training, labels)
    test = write_shards(out / "test", "val", TEST_SCENES, 1, TEST_SEED)
    truths = [truth for shard in test for truth in read_truth(shard)]
    if len(truths) != TEST_SCENES:
        raise RunFolderError(f"{out}: has {len(truths):,} test scenes, not {TEST_SCENES:,}; choose another folder")
    return Material(training=training, labels=labels, test=test, truths=truths)
