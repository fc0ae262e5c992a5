"""Reading ahead in processes of their own, and one clear line for whatever goes wrong in them.

The processes come from a server process that has never used an object store or a GPU, and not from a fork of this one.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver, resource_tracker, set_forkserver_preload
from multiprocessing.util import Finalize
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from store.errors import RelabelError, TrainingError
from store.memory import keep_freed_memory

T = TypeVar("T")
DEATH = "DataLoader worker (pid"  # how torch's message of a dead process starts
PRELOADED = ["trainer.source", "trainer.evaluate"]
STOPPING = {signal.SIGINT, signal.SIGTERM}
GRACE = 1.0  # seconds in which a process may finish its item once nobody wants it any more


def start_server() -> None:
    """Start the process that loader processes are forked from, which takes seconds; beside other work if called early.

    Whoever stops a run may signal every process of it. Neither the server nor what is forked from it hears that: the
    main process finishes what it is doing, and needs them for it.
    """
    set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # else the server starts it, which lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # which a new process inherits
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def load_items(
    dataset: Dataset[T | RelabelError], *, workers: int, pin_memory: bool = False
) -> Generator[T, None, None]:
    """The items of a dataset, in the order in which torch hands out the work.

    Errors travel as values, since a raised one would arrive as the text of a traceback. Closing the generator ends the
    processes within about a second, whatever they are doing.

    Args:
        dataset: gives items, or what is wrong as an item; is pickled to each process.
        workers: processes that read; 0 does it in this one.
        pin_memory: hand over page-locked tensors, for a GPU.

    Raises:
        RelabelError: what went wrong in a worker.
        TrainingError: a worker was killed.
    """
    with worker_deaths(), _loader(dataset, workers, pin_memory) as items:
        for item in items:
            if isinstance(item, RelabelError):
                raise item
            yield item


@contextmanager
def _loader(dataset: Dataset[T], workers: int, pin_memory: bool) -> Iterator[Iterator[T]]:
    """The items, from processes that end with this context."""
    if not workers:
        yield iter(DataLoader(dataset, batch_size=None, pin_memory=pin_memory))
        return
    start_server()
    wanted, wanting = multiprocessing.Pipe(duplex=False)
    end = Finalize(None, _tell_end, (wanting,), exitpriority=1)  # also where the main process simply ends
    try:
        yield iter(
            DataLoader(
                dataset,
                batch_size=None,
                num_workers=workers,
                pin_memory=pin_memory,
                multiprocessing_context="forkserver",
                worker_init_fn=partial(_begin, wanted, dict(os.environ)),
            )
        )
    finally:
        # Before torch's own farewell, in which it waits for each process to finish its item.
        end()
        wanted.close()


def _tell_end(wanting: connection.Connection) -> None:
    wanting.send_bytes(b"end")
    wanting.close()


def _begin(wanted: connection.Connection, environment: dict[str, str], _: int) -> None:
    """In a new process: hear no signals, but end with the main process or when nobody wants its items any more.

    The server has the environment of its own start; what was set since, such as credentials, comes along here.
    """
    os.environ.update(environment)
    keep_freed_memory()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(wanted,), daemon=True).start()


def _end_with(wanted: connection.Connection) -> None:
    main: Any = multiprocessing.parent_process()
    if wanted in connection.wait([wanted, main.sentinel]):  # which nobody reads: all of the processes see it
        time.sleep(GRACE)
    os._exit(0)


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Turns the death of a loader process into a TrainingError; a context or a decorator."""
    try:
        yield
    # Whoever waits for the rest of what a dead process had begun to hand over gets one of the other errors.
    except (RuntimeError, ConnectionRefusedError, ConnectionResetError, EOFError) as error:
        if isinstance(error, RuntimeError) and DEATH not in str(error):
            raise
        raise TrainingError("a loader process was killed, most often for want of memory; use fewer workers") from error
