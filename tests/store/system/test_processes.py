"""Errors of worker processes."""

from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from store.errors import WorkerError
from store.system.processes import worker_deaths
from tests.builders.processes import small_disk

KILLED = "^a worker process was killed, most often for lack of memory; do this$"
SHM_FULL = r"^/dev/shm is full, the shared memory for batches; enlarge it \(docker run --shm-size=8g\), or do this$"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), KILLED),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), KILLED),
        (RuntimeError("Pin memory thread exited unexpectedly"), KILLED),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), KILLED),
        (ConnectionRefusedError(), KILLED),
        (ConnectionResetError(), KILLED),
        (EOFError(), KILLED),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device"), SHM_FULL),
        (RuntimeError("unable to resize file <filename not specified> to the right size: No space left"), SHM_FULL),
    ],
)
def test_death_of_a_worker_is_one_line_that_says_what_to_do(error: Exception, message: str) -> None:
    with pytest.raises(WorkerError, match=message), worker_deaths(WorkerError, "do this"):
        raise error


@pytest.mark.filterwarnings("ignore")
def test_torch_words_a_full_shared_memory_as_expected() -> None:
    with small_disk(1 << 20), pytest.raises(WorkerError, match=SHM_FULL), worker_deaths(WorkerError, "do this"):
        torch.zeros(1 << 22, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
