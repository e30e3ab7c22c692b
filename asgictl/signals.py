"""What asks a process to end."""

import signal
import threading
from _thread import start_new_thread


def told_to_end() -> threading.Event:
    """Return an event that SIGINT, SIGTERM and SIGHUP set from now on: a command that drains looks at it."""
    ending = threading.Event()
    set_by(ending, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return ending


def set_by(event: threading.Event, *numbers: int) -> None:
    """Have signals set an event. In a thread: a handler runs in the main one, which may hold the event's lock."""
    for number in numbers:
        signal.signal(number, lambda _number, _frame: start_new_thread(event.set, ()))
