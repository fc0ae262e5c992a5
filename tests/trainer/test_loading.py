import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from store.errors import ImageError, RelabelError, TrainingError
from store.reader import LabelStore
from tests.trainer import builders
from tests.trainer.builders import Recorder, small_settings
from trainer.evaluate import evaluate, open_val, predict
from trainer.join import check_join, join_shards
from trainer.loading import load_items, worker_deaths
from trainer.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

KILLED = "a loader process was killed, most often for want of memory; use fewer workers"
SETTINGS = small_settings(workers=1, precision="float32")


class Numbers(Dataset[int | RelabelError]):
    """0 to 999, each after doing something in the worker."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, i: int) -> int | RelabelError:
        try:
            self.act(i)
        except RelabelError as error:
            return error
        return i


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_come_in_order_and_errors_as_they_were_raised(workers: int) -> None:
    def fail_at_50(i: int) -> None:
        if i == 50:
            raise ImageError("number 50")

    items = load_items(Numbers(fail_at_50), workers=workers)
    assert list(itertools.islice(items, 50)) == list(range(50))
    with pytest.raises(ImageError, match=r"^number 50$"):
        next(items)


def check(data: builders.Dataset, _: Path) -> None:
    check_join(join_shards(data.shards, LabelStore.open(data.labels)), SETTINGS, num_classes=5)


def predict_one(data: builders.Dataset, _: Path) -> None:
    next(predict(nn.Flatten(), open_val(data.val, 5), SETTINGS))


def evaluate_all(data: builders.Dataset, _: Path) -> None:
    evaluate(nn.Flatten(), open_val(data.val, 5), SETTINGS)


def train_all(data: builders.Dataset, out: Path) -> None:
    train(
        SETTINGS, shards=data.shards, labels=data.labels, val_shards=data.val, out=out, resume=False,
        reporter=Recorder(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "use"),
    [
        ("trainer.join._check_members", check),
        ("trainer.valset.decode_image", predict_one),
        ("trainer.valset.decode_image", evaluate_all),
        ("trainer.join._check_members", train_all),
        ("trainer.samples.decode_image", train_all),
        ("trainer.valset.decode_image", train_all),
    ],
)
def test_a_killed_loader_process_is_one_clear_line_everywhere(
    dataset: builders.Dataset,
    tmp_path: Path,
    where: str,
    use: Callable[[builders.Dataset, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, die)
    with pytest.raises(TrainingError, match=KILLED):
        use(dataset, tmp_path / "run")


def test_a_death_is_told_where_the_items_are_used_too() -> None:
    items = load_items(Numbers(lambda i: None), workers=1)
    next(items)

    @worker_deaths()
    def use_them() -> None:
        multiprocessing.active_children()[0].kill()
        while True:
            torch.zeros(1)

    with pytest.raises(TrainingError, match=KILLED):
        use_them()


@pytest.mark.parametrize(
    ("where", "use"),
    [("trainer.evaluate.normalise", evaluate_all), ("tests.trainer.builders.Recorder.step", train_all)],
)
def test_a_death_may_be_told_in_the_midst_of_other_work(
    dataset: builders.Dataset,
    tmp_path: Path,
    where: str,
    use: Callable[[builders.Dataset, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(where, interrupted)
    with pytest.raises(TrainingError, match=KILLED):
        use(dataset, tmp_path / "run")


@pytest.mark.parametrize("error", [ConnectionRefusedError(), ConnectionResetError(), EOFError()])
def test_broken_connections_to_a_dead_process_are_told_alike(error: Exception) -> None:
    with pytest.raises(TrainingError, match=KILLED), worker_deaths():
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("Caught RuntimeError in DataLoader worker process 0."), BrokenPipeError(32, "the output's")]
)
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, worker_deaths():
        raise error
    assert caught.value is error
