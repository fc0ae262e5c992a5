"""Worker processes that read ahead: how they start, how they end, and which error their death becomes.

torch's DataLoader starts them, or a process pool. They are forked from a server process that has never used an object
store or a GPU, and not from the main process. Signals that stop a run reach all of its processes; the server and the
workers ignore them, because the main process needs them to finish what it is doing.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver, process, resource_tracker, set_forkserver_preload, util
from pathlib import Path
from typing import Any, TypeVar

from store.errors import RelabelError, WorkerError
from store.foreign import WORKER_DIED, says
from store.system.limits import allow_open_files, exhausted, expect_open_files
from store.system.scratch import Scratch

T = TypeVar("T")
STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
FILES_PER_WORKER = 5  # of the main process, once they have started; as many as ten while they work
GRACE = 1.0  # seconds in which a worker may finish its item after it is asked to end
SAFE_PATH = "PYTHONSAFEPATH"
SHARED_MEMORY = Path("/dev/shm")
AFTER_ALL = -100  # the place of multiprocessing's own removal of its folder among what is done at exit


def start_server(modules: Sequence[str]) -> None:
    """Start the process from which workers are forked. It takes seconds; called early, it runs beside other work.

    Raises the number of files that may be open, since the main process needs several for each worker.

    Args:
        modules: modules that the server imports, so that no worker has to.
    """
    allow_open_files()
    set_forkserver_preload(["store.system.fork_server", *modules])
    _use_own_folder()
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # a new process inherits the mask
    resource_tracker.ensure_running()  # the server would start it with the signals unblocked, as this does
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    # The server is a `python -c`: without this, it would import a numpy.py of the current folder.
    safe = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop(SAFE_PATH) if safe is None else os.environ.update({SAFE_PATH: safe})
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _use_own_folder() -> None:
    """Put the sockets of workers into a folder of this process, and name their semaphores after it.

    By default sockets are in TMPDIR, whose name may be too long for one, as those of SLURM's jobs are. And nothing says
    whose sockets and semaphores those are that a killed process leaves.

    Raises:
        WorkerError: no folder can be made in /dev/shm.
    """
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]  # children inherit it
    if "tempdir" in config or not SHARED_MEMORY.is_dir():
        return
    try:
        folder = Scratch(SHARED_MEMORY)
    except OSError as error:
        raise WorkerError(f"{SHARED_MEMORY}: {error.strerror}; worker processes need a folder there") from error
    config["tempdir"], config["semprefix"] = str(folder.path), f"/{folder.path.name}"
    util.Finalize(None, folder.remove, exitpriority=AFTER_ALL)


def read_ahead(
    make_loader: Callable[..., Iterable[T]], *, workers: int, preload: Sequence[str]
) -> Generator[T, None, None]:
    """The items of a DataLoader whose worker processes end within about a second of this generator.

    Args:
        make_loader: builds the DataLoader; called with no arguments, or with those that concern worker processes.
        workers: number of processes; 0 loads in this one.
        preload: modules that workers need, as for `start_server`.
    """
    if not workers:
        yield from make_loader()
        return
    start_server(preload)
    expect_open_files(FILES_PER_WORKER * workers)  # here, since torch prints tracebacks if it cannot start them all
    items: Iterator[T] = iter(())
    try:
        with ending_workers() as begin:
            with warnings.catch_warnings(action="ignore"):  # more workers than cores is the user's choice
                items = iter(
                    make_loader(num_workers=workers, multiprocessing_context="forkserver", worker_init_fn=begin)
                )
            yield from items
    finally:
        # An error keeps this frame alive. If torch's queues were collected later, with the error, they would be closed
        # under the threads that feed them.
        del items


@contextmanager
def worker_deaths(error: type[RelabelError], advice: str) -> Iterator[None]:
    """Turn the death of a worker process, or what it ran out of, into one line; a context or a decorator.

    Args:
        error: the class to raise.
        advice: what the user should do, such as "use fewer workers".
    """
    try:
        yield
    except RelabelError:
        raise
    # When a worker dies in the middle of a batch, the receiver gets a connection error or EOFError.
    except (RuntimeError, MemoryError, OSError, EOFError) as death:
        if lacking := exhausted(death):
            raise error(lacking + advice) from death
        is_broken = isinstance(death, (ConnectionRefusedError, ConnectionResetError, EOFError, BrokenExecutor))
        if not is_broken and not says(death, WORKER_DIED):
            raise
        raise error(f"a worker process was killed, most often for lack of memory; {advice}") from death


@contextmanager
def ending_workers() -> Iterator[Callable[[int], None]]:
    """Yield the function that each new worker has to call first (torch's `worker_init_fn`).

    The workers end within about a second of this context, or of the main process, also in the middle of an item.
    """
    wanted, wanting = multiprocessing.Pipe(duplex=False)
    end = util.Finalize(None, _request_end, (wanting,), exitpriority=1)  # also at the exit of the main process
    try:
        yield partial(_begin, wanted, dict(os.environ))
    finally:
        # Before torch ends the workers itself, since it waits for each to finish its item.
        end()
        wanted.close()


def _request_end(wanting: connection.Connection) -> None:
    wanting.send_bytes(b"end")
    wanting.close()


def _begin(wanted: connection.Connection, environment: dict[str, str], _: int) -> None:
    """Set up a new worker: ignore signals, and end with the main process or when asked to.

    The server has the environment of its own start; variables set since then, such as credentials, are passed here.
    """
    os.environ.update(environment)
    keep_freed_memory()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(wanted,), daemon=True).start()


def _end_with(wanted: connection.Connection) -> None:
    main: Any = multiprocessing.parent_process()
    if wanted in connection.wait([wanted, main.sentinel]):  # the message stays unread, so that every worker sees it
        time.sleep(GRACE)
    # A worker that has workers itself owns semaphores; left behind, the resource tracker would warn of them.
    util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(0)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1  # glibc reads it as the largest size


def keep_freed_memory() -> None:
    """Let glibc keep the memory that this process frees, instead of returning it to the system at once.

    A forward pass on a CPU allocates each large activation anew, and the system has to clear every page of it: that
    took half to three quarters of the time of a MobileNetV2 at 480 pixels. Decoding photographs one after the other
    takes a quarter less with it. Does nothing with another C library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
