"""Reading ahead in processes of their own, and one clear line for whatever goes wrong in them."""

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

from store import processes
from store.errors import RelabelError, TrainingError
from store.foreign import SHARED_MEMORY_FULL, WORKER_DIED, says

T = TypeVar("T")
PRELOADED = ["trainer.data.batches", "trainer.evaluation.evaluate"]


def start_server() -> None:
    """Start the process that others are forked from, which takes seconds; beside other work if called early."""
    processes.start_server(PRELOADED)


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
    items: Iterator[T | RelabelError] = iter(())
    try:
        with worker_deaths(), _loader(dataset, workers, pin_memory) as items:
            for item in items:
                if isinstance(item, RelabelError):
                    raise item
                yield item
    finally:
        del items  # see `_loader`


@contextmanager
def _loader(dataset: Dataset[T], workers: int, pin_memory: bool) -> Iterator[Iterator[T]]:
    """The items, from processes that end with this context."""
    if not workers:
        yield iter(DataLoader(dataset, batch_size=None, pin_memory=pin_memory))
        return
    start_server()
    items: Iterator[T] = iter(())
    try:
        with processes.ending_workers() as begin:
            with warnings.catch_warnings(action="ignore"):  # more workers than cores is the user's choice
                items = iter(
                    DataLoader(
                        dataset,
                        batch_size=None,
                        num_workers=workers,
                        pin_memory=pin_memory,
                        multiprocessing_context="forkserver",
                        worker_init_fn=begin,
                    )
                )
            yield items
    finally:
        # An error keeps this frame. Collected only later, with the error, torch's queues are closed under the threads
        # that feed them.
        del items


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Turns the death of a loader process into a TrainingError; a context or a decorator."""
    try:
        yield
    # Whoever waits for the rest of what a dead process had begun to hand over gets one of the other errors.
    except (RuntimeError, ConnectionRefusedError, ConnectionResetError, EOFError) as error:
        if says(error, SHARED_MEMORY_FULL):
            raise TrainingError(
                "/dev/shm is full, through which batches are handed over; give it more (docker run --shm-size=8g), or "
                "use fewer workers"
            ) from error
        if isinstance(error, RuntimeError) and not says(error, WORKER_DIED):
            raise
        raise TrainingError("a loader process was killed, most often for want of memory; use fewer workers") from error
