"""What a signal does at once, what waits, and who hears it."""

import signal

import pytest

from lit_pref.callbacks.stop_signals import STOP, Stopped


@pytest.fixture(autouse=True)
def heard():
    """Signals as in a foreground process: a shell has those that it starts in the background ignore Ctrl-C."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_at_once_where_nothing_waits() -> None:
    with STOP.handled(), pytest.raises(Stopped) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert (stop.value.code, stop.value.name) == (143, "SIGTERM")
    with STOP.handled(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with STOP.handled(), pytest.raises(Stopped) as stop:
        signal.raise_signal(signal.SIGHUP)
    assert stop.value.code == 129


def test_later_where_something_waits() -> None:
    with STOP.handled():
        STOP.waits = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # as some launchers send it, to the group and to the process
        with pytest.raises(Stopped):
            STOP.stop_here()
    with STOP.handled():
        STOP.stop_here()  # nothing of the run before


def test_a_second_interrupt_does_not_wait() -> None:
    with STOP.handled():
        STOP.waits = True
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back_and_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        with STOP.handled():
            signal.raise_signal(signal.SIGHUP)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a library's
            STOP.take_back()
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGTERM)
        assert handlers == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    finally:
        signal.signal(signal.SIGHUP, before)
