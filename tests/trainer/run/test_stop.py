import signal
from collections.abc import Iterator

import pytest

from trainer.run.loop import SIGNALS, StopSignal


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A run that is started by a test has handlers of its own."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_first_signal_is_recorded_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    with StopSignal() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert stop()


def test_signals_are_left_as_they_were() -> None:
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sighup_stays_ignored_where_it_is() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop()
