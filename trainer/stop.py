"""A run's end asked for by a signal: SIGTERM, or Ctrl-C."""

import signal
from threading import current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """To be used as a context, in which the first signal is remembered and a second one does what it always does.

    Outside the main thread, where Python takes no signals, nothing is ever asked for.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether the end was asked for."""
        return self._asked

    def __enter__(self) -> "StopSignal":
        if current_thread() is main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _ask(self, _: int, __: FrameType | None) -> None:
        self._asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
