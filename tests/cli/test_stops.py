"""Signals of schedulers and terminals: a command ends as after Ctrl-C, with the exit code of the signal."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from qeval.cli import stops


@pytest.fixture(autouse=True)
def _usual():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_as_ctrl_c_does(number: int, code: int) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, stops.heard():
        os.kill(os.getpid(), number)
    assert isinstance(caught.value, stops.Stopped)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_signal_does_not_break_off_the_end() -> None:
    ended = []

    def twice() -> None:
        with stops.heard():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    os.kill(os.getpid(), number)
                ended.append(True)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(stops.Stopped):
        twice()
    assert ended
    assert signal.getsignal(signal.SIGINT) == before


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stops.heard():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_another_thread_changes_nothing() -> None:
    found = []

    def look() -> None:
        with stops.heard():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
