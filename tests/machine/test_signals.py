"""Signals that set an event, in this process."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from asgictl.machine.signals import Ending, on_signal, told_to_end

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
    assert ending.wait(60)
    assert ending.number == number


def test_a_signal_that_comes_while_the_main_thread_holds_the_events_lock_sets_it_too() -> None:
    """Event.wait() holds it for a moment: set() in the handler would wait for ever."""
    event = threading.Event()
    on_signal(lambda _number: event.set(), signal.SIGTERM)
    with event._cond:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGTERM)
    assert event.wait(60)


def test_who_asks_once_more_is_heard_unless_it_is_the_same_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("asgictl.machine.signals.time.monotonic", lambda: now)
    ending, again = Ending(), list[float]()
    ending.set()  # nobody has asked yet
    ending.hear(signal.SIGINT)
    ending.again = lambda: again.append(now)
    for later, number in ((0.1, signal.SIGINT), (1.0, signal.SIGHUP), (2.0, signal.SIGINT), (3.0, signal.SIGTERM)):
        now = 100.0 + later
        ending.hear(number)
    assert again == [102.0, 103.0]
    assert ending.number == signal.SIGINT
