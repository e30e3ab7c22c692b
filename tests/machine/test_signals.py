"""Signals that set an event, in this process."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from asgictl.machine.signals import set_by, told_to_end

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    ending = told_to_end()
    assert not ending.is_set()
    assert ending.number == 0
    os.kill(os.getpid(), number)
    assert ending.wait(10)
    assert ending.number == number


def test_a_signal_that_comes_while_the_main_thread_holds_the_events_lock_sets_it_too() -> None:
    """Event.wait() holds it for a moment: set() in the handler would wait for ever."""
    event = threading.Event()
    set_by(event, signal.SIGTERM)
    with event._cond:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGTERM)
    assert event.wait(10)
