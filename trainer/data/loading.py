"""Load a dataset's items in worker processes; a worker's death becomes a one-line TrainingError."""

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

from store.errors import RelabelError, TrainingError
from store.system import processes

T = TypeVar("T")
# Turns the death of a worker, or a lack of memory or files, into a TrainingError; a context or a decorator.
worker_deaths = partial(processes.worker_deaths, TrainingError, "use fewer workers or a smaller batch_size")


def load_items(
    dataset: Dataset[T | RelabelError], *, workers: int, preload: Sequence[str], pin_memory: bool = False
) -> Generator[T, None, None]:
    """The items of a dataset, in order.

    A dataset returns its errors as items, because torch turns a raised error into the text of a traceback. Closing the
    generator ends the workers within about a second, also in the middle of an item.

    Args:
        dataset: returns items or errors; pickled to each worker.
        workers: number of processes; 0 loads in this one.
        preload: modules that workers need, as for `store.system.processes.start_server`.
        pin_memory: return page-locked tensors, for a GPU.

    Raises:
        RelabelError: the dataset returned it.
        TrainingError: a worker was killed; memory, open files or /dev/shm do not suffice.
    """
    loader = partial(DataLoader, dataset, batch_size=None, pin_memory=pin_memory)
    with worker_deaths(), closing(processes.read_ahead(loader, workers=workers, preload=preload)) as items:
        for item in items:
            if isinstance(item, RelabelError):
                raise item
            yield item
