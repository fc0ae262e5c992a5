import itertools
import multiprocessing.process
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, dataloader

from store.errors import ImageError, RelabelError, TrainingError
from store.reader import LabelStore
from tests.builders import training as builders
from tests.builders.training import Recorder, small_settings
from trainer.data.checks import check_join
from trainer.data.join import join_shards
from trainer.data.loading import load_items, worker_deaths
from trainer.evaluation.evaluate import evaluate, open_val, predict
from trainer.run.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

KILLED = "a worker process was killed, most often for lack of memory; use fewer workers"
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


def fail_at_50(i: int) -> None:
    if i == 50:
        raise ImageError("number 50")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_items_come_in_order_and_errors_as_they_were_raised(workers: int) -> None:
    items = load_items(Numbers(fail_at_50), workers=workers, preload=[load_items.__module__])
    assert list(itertools.islice(items, 50)) == list(range(50))
    with pytest.raises(ImageError, match=r"^number 50$"):
        next(items)


class Deadly(Dataset[Any]):
    """Another dataset; the worker is killed while it reads the first item."""

    def __init__(self, inner: Dataset[Any]) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> None:
        die()


class DeadlyStream(IterableDataset[Any]):
    def __init__(self, inner: IterableDataset[Any]) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        yield from itertools.islice(self.inner, 2)
        die()


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch checks for dead workers every five seconds."""
    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


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


@pytest.mark.usefixtures("quick_look")
@pytest.mark.parametrize(
    ("where", "use"),
    [
        ("_Checks", check),
        ("ValBatches", predict_one),
        ("ValBatches", evaluate_all),
        ("_Checks", train_all),
        ("SampleStream", train_all),
        ("ValBatches", train_all),
    ],
)
def test_a_killed_loader_process_is_one_clear_line_everywhere(
    dataset: builders.Dataset,
    tmp_path: Path,
    where: str,
    use: Callable[[builders.Dataset, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(items: Dataset[Any], **options: Any) -> DataLoader[Any]:
        if type(items).__name__ == where:
            items = DeadlyStream(items) if isinstance(items, IterableDataset) else Deadly(items)
        return DataLoader(items, **options)

    monkeypatch.setattr("trainer.data.loading.DataLoader", load)
    with pytest.raises(TrainingError, match=KILLED):
        use(dataset, tmp_path / "run")


@pytest.mark.parametrize(
    ("where", "use"),
    [("trainer.evaluation.evaluate.normalise", evaluate_all), ("tests.builders.training.Recorder.step", train_all)],
)
def test_a_death_that_torch_reports_during_other_work_is_one_clear_line(
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
def test_broken_connection_to_a_dead_worker_is_the_same_error(error: Exception) -> None:
    with pytest.raises(TrainingError, match=KILLED), worker_deaths():
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("Caught RuntimeError in DataLoader worker process 0."), BrokenPipeError(32, "the output's")]
)
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, worker_deaths():
        raise error
    assert caught.value is error


def fill_shared_memory(_: int) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_full_shared_memory_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match=r"/dev/shm is full, .*--shm-size=8g"):
        list(load_items(Numbers(fill_shared_memory), workers=1, preload=[load_items.__module__]))


# How the processes end.


def sleep(_: int) -> None:
    time.sleep(600)


def sleep_but_at_first(i: int) -> None:
    if i:
        sleep(i)


def wait_for_end(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    deadline = time.monotonic() + 20
    while any(process.is_alive() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def new_processes(before: Sequence[multiprocessing.process.BaseProcess]) -> list[multiprocessing.process.BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in before]


def test_workers_end_when_the_generator_is_closed() -> None:
    """Even while they read an item that never arrives, such as from a silent server."""
    before = multiprocessing.active_children()
    items = load_items(Numbers(sleep_but_at_first), workers=2, preload=[load_items.__module__])
    next(items)
    processes = new_processes(before)
    assert len(processes) == 2
    started = time.monotonic()
    items.close()
    wait_for_end(processes)
    assert time.monotonic() - started < 5  # torch alone waits five seconds for each, then sends what they do not hear


def test_workers_ignore_the_signals_that_stop_a_run() -> None:
    before = multiprocessing.active_children()
    items = load_items(Numbers(abs), workers=2, preload=[load_items.__module__])
    assert [next(items), next(items)] == [0, 1]  # both have begun
    for process in new_processes(before):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(process.pid or 0, number)
    assert list(items) == list(range(2, 1000))


PROGRAM = """
import os, signal, sys, time
from multiprocessing import active_children, forkserver
from torch.utils.data import Dataset
from trainer.data import loading

class Slow(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, i):
        time.sleep(600 if i else 0)
        return i

if __name__ == "__main__":
    items = loading.load_items(Slow(), workers=2, preload=[loading.__name__])
    next(items)
    server = forkserver._forkserver._forkserver_pid
    for number in (signal.SIGTERM, signal.SIGHUP):
        os.kill(server, number)
    time.sleep(0.3)
    os.kill(server, 0)
    print(*[process.pid for process in active_children()], server, flush=True)
    {then}
"""


@pytest.mark.parametrize(
    "then",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        pytest.param("time.sleep(600)", marks=pytest.mark.slow),
        pytest.param("pass", marks=pytest.mark.slow),
        pytest.param("items.close()", marks=pytest.mark.slow),
    ],
)
def test_workers_and_server_end_with_the_main_process(tmp_path: Path, then: str) -> None:
    """However it ends; and a signal to all processes of a run does not end the server first."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(then=then))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 3
        if "sleep" in then:
            program.terminate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
