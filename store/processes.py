"""Processes that read ahead for a run: where they come from, and how they end. torch's DataLoader starts them.

They come from a server process that has never used an object store or a GPU, and not from a fork of this one. Whoever
stops a run may signal every process of it. Neither the server nor what is forked from it hears that: the main process
finishes what it is doing, and needs them for it.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver, resource_tracker, set_forkserver_preload
from multiprocessing.util import Finalize
from typing import Any

STOPPING = {signal.SIGINT, signal.SIGTERM}
GRACE = 1.0  # seconds in which a process may finish its item once nobody wants it any more
SAFE_PATH = "PYTHONSAFEPATH"


def start_server(modules: Sequence[str]) -> None:
    """Start the process that others are forked from, which takes seconds; beside other work if called early.

    Args:
        modules: what it imports, so that they need not.
    """
    set_forkserver_preload(list(modules))
    resource_tracker.ensure_running()  # else the server starts it, which lets the signals in again
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # which a new process inherits
    # The server is a `python -c`: without this, a numpy.py in the current folder would be what it imports.
    safe = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop(SAFE_PATH) if safe is None else os.environ.update({SAFE_PATH: safe})
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextmanager
def ending_workers() -> Iterator[Callable[[int], None]]:
    """Gives what each new process has to call first (torch's `worker_init_fn`); they end with this context.

    Within about a second, whatever they are doing, also where the main process ends in any other way.
    """
    wanted, wanting = multiprocessing.Pipe(duplex=False)
    end = Finalize(None, _tell_end, (wanting,), exitpriority=1)  # also where the main process simply ends
    try:
        yield partial(_begin, wanted, dict(os.environ))
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


# Memory that a network or a decoder frees is kept for the next batch.


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1  # read as the largest size there is


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees, instead of giving it back to the system at once.

    A forward pass on a CPU allocates each large activation anew, and the system has to clear every page of it: that
    took half to three quarters of the time of a MobileNetV2 at 480 pixels. Decoding photographs one after the other
    takes a quarter less with it. Does nothing with another C library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
