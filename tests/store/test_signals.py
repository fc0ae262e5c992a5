import os
import signal

import pytest

from store.signals import Terminated, ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_runs_finally_blocks_and_the_next_one_ends_at_once(number: signal.Signals) -> None:
    after: list[object] = []

    def end_itself() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            after.append(signal.getsignal(number))

    with pytest.raises(Terminated) as caught, ended_by_signals():
        end_itself()
    assert caught.value.code == 128 + number
    assert after == [signal.SIG_DFL] == [signal.getsignal(number)]


def test_sigterm_that_is_handled_already_is_left_alone() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
