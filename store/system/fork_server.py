"""Imported by the process from which workers are forked, and by nothing else: it hides an expected traceback.

When a run ends while a worker is starting, the queues that the worker is about to open are gone. The worker then ends,
as it should, but multiprocessing would print the error.
"""

import pickle
import sys
from types import TracebackType

# The main process sends nothing more, or only a part, or has removed a semaphore.
MAIN_ENDED = (EOFError, pickle.UnpicklingError, FileNotFoundError)


def hide_if_main_ended(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an error that ends a starting worker, unless it says that the main process has ended."""
    if not issubclass(kind, MAIN_ENDED):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = hide_if_main_ended
