"""Signals that end a process at once: they run its `finally` blocks first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """Raised in the main thread by a signal; a subclass, to be distinguished from a call of `sys.exit`."""


@contextmanager
def ended_by_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals raise `Terminated`, so that `finally` blocks run; the same signal again ends the process at once.

    A process that SIGTERM ends directly leaves the semaphores of its workers' queues to multiprocessing's resource
    tracker, which then prints a warning. Nothing changes outside the main thread, or for signals that are handled
    already.

    Args:
        numbers: the signals; by default SIGTERM and SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(128 + number)

    unhandled = [number for number in numbers or ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
