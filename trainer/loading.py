"""Reading ahead in processes of their own, and one clear line for whatever goes wrong in them."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

from store.errors import RelabelError, TrainingError

T = TypeVar("T")
DEATH = "DataLoader worker (pid"  # how torch's message of a dead process starts


def load_items(
    dataset: Dataset[T | RelabelError], *, workers: int, pin_memory: bool = False
) -> Generator[T, None, None]:
    """The items of a dataset, in the order in which torch hands out the work.

    Errors travel as values, since a raised one would arrive as the text of a traceback.

    Args:
        dataset: gives items, or what is wrong as an item.
        workers: processes that read; 0 does it in this one.
        pin_memory: hand over page-locked tensors, for a GPU.

    Raises:
        RelabelError: what went wrong in a worker.
        TrainingError: a worker was killed.
    """
    with worker_deaths():
        for item in DataLoader(dataset, batch_size=None, num_workers=workers, pin_memory=pin_memory):
            if isinstance(item, RelabelError):
                raise item
            yield item


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Turns the death of a loader process into a TrainingError.

    For whoever loops over `load_items`, as a context or a decorator: torch may raise it anywhere in the main process.
    """
    try:
        yield
    # Whoever waits for the rest of what a dead process had begun to hand over gets one of the other errors.
    except (RuntimeError, ConnectionRefusedError, ConnectionResetError, EOFError) as error:
        if isinstance(error, RuntimeError) and DEATH not in str(error):
            raise
        raise TrainingError("a loader process was killed, most often for want of memory; use fewer workers") from error
