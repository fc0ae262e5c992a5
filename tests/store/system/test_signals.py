import os
import signal
from collections.abc import Iterator

import pytest

from store.system.signals import ENDING, Terminated, ended_by_signals


@pytest.fixture(autouse=True)
def unhandled() -> Iterator[None]:
    """The signals as in a fresh process: Ray, for one, leaves a handler of SIGTERM in every process that uses it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_sighup_stays_ignored_where_it_is() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGHUP)


def test_sigterm_that_is_handled_already_is_left_alone() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
