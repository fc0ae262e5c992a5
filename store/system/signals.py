"""Signals that end a process at once: they run its `finally` blocks first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """Raised in the main thread by a signal; a subclass, to be distinguished from a call of `sys.exit`."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated`, so that `finally` blocks run; the same one again ends it at once.

    A process that SIGTERM ends directly leaves the semaphores of its workers' queues to multiprocessing's resource
    tracker, which then prints a warning. Nothing changes outside the main thread, or for signals that are handled
    already, or ignored: SIGHUP under nohup.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(128 + number)

    unhandled = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
