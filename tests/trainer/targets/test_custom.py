from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from store.errors import RunFolderError, SettingsError
from tests.builders.training import (
    Dataset,
    Recorder,
    assert_same_state,
    interrupted_run,
    make_dataset,
    run,
    small_settings,
)
from trainer.batch import Batch
from trainer.run.loop import train
from trainer.targets.custom import CustomTargets
from trainer.targets.targets import one_hot

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
NUM_CLASSES = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("own"), (70, 10, 48))


def labels(batch: Batch) -> Tensor:
    return one_hot(batch.labels, NUM_CLASSES)


def custom_run(data: Dataset, out: Path, own: CustomTargets, *, resume: bool = False) -> None:
    settings = small_settings(target="relabel")
    train(
        settings,
        shards=data.shards,
        labels=data.labels,
        val_shards=data.val,
        out=out,
        resume=resume,
        reporter=Recorder(),
        custom_targets=own,
    )


def test_custom_targets_replace_the_settings_kind(data: Dataset, tmp_path: Path) -> None:
    custom_run(data, tmp_path / "own", CustomTargets(name="originals", make=labels))
    run(data, tmp_path / "original", target="original")
    assert_same_state(tmp_path / "own", tmp_path / "original")


def test_custom_targets_get_uint8_crops(data: Dataset, tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    def make(batch: Batch) -> Tensor:
        seen.append(batch.images.dtype)
        return labels(batch)

    custom_run(data, tmp_path / "own", CustomTargets(name="watched", make=make))
    assert set(seen) == {torch.uint8}


@pytest.mark.parametrize(("then", "now"), [("a teacher", "another"), (None, "a teacher"), ("a teacher", None)])
def test_a_run_does_not_go_on_with_targets_of_another_name(
    data: Dataset, tmp_path: Path, then: str | None, now: str | None
) -> None:
    def start(name: str | None, *, resume: bool) -> None:
        if name is None:
            run(data, tmp_path / "run", resume=resume)
        else:
            custom_run(data, tmp_path / "run", CustomTargets(name=name, make=labels), resume=resume)

    start(then, resume=False)
    names = [repr(name) if name else '"the settings\'"' for name in (then, now)]
    with pytest.raises(RunFolderError, match=f"targets: {names[0]} then, {names[1]} now"):
        start(now, resume=True)


def test_a_run_of_a_release_without_custom_targets_can_be_resumed(data: Dataset, tmp_path: Path) -> None:
    interrupted_run(data, tmp_path / "run", at_step=5)
    file = tmp_path / "run" / "settings.json"
    file.write_text(file.read_text().replace(' "own_targets": null,\n', ""))
    assert "own_targets" not in file.read_text()
    assert run(data, tmp_path / "run", resume=True).finished


def good(batch: Batch) -> Tensor:
    return torch.full((len(batch.images), NUM_CLASSES), 1 / NUM_CLASSES)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda batch: good(batch)[:, :1], r"expected \(\d+, 5\) torch.float32, found \(\d+, 1\) torch.float32"),
        (lambda batch: good(batch)[:1], r"found \(1, 5\)"),
        (lambda batch: good(batch)[0], r"found \(5,\)"),
        (lambda batch: good(batch).double(), "found .* torch.float64"),
        (lambda batch: batch.labels, "found .* torch.int64"),
        (lambda _: None, "found NoneType"),
        (lambda batch: good(batch) * 2, "rows of numbers >= 0 that sum to 1"),
        (lambda batch: torch.full_like(good(batch), torch.nan), "rows of numbers >= 0 that sum to 1"),
        (lambda batch: good(batch) + torch.tensor([1.0, -1, 0, 0, 0]), "rows of numbers >= 0 that sum to 1"),
        (lambda batch: good(batch)[:, 9], "cannot be made: IndexError: index 9"),
    ],
)
def test_errors_of_custom_targets_name_them(
    data: Dataset, tmp_path: Path, make: Callable[[Batch], Tensor], said: str, late: bool
) -> None:
    calls = 0

    def sometimes(batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return good(batch) if late and calls < 3 else make(batch)

    with pytest.raises(SettingsError, match=f"the targets 'my idea'.*{said}"):
        custom_run(data, tmp_path / "run", CustomTargets(name="my idea", make=sometimes))
