"""What asks a process to end."""

import signal
import threading
from _thread import start_new_thread


class Ending(threading.Event):
    """Set by a signal. number: the first one's, 0 before."""

    number = 0


def told_to_end() -> Ending:
    """Return an event that SIGINT, SIGTERM and SIGHUP set from now on: a command that drains looks at it."""
    ending = Ending()
    set_by(ending, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return ending


def set_by(event: threading.Event, *numbers: int) -> None:
    """Have signals set an event. In a thread: a handler runs in the main one, which may hold the event's lock."""

    def handle(number: int, _frame: object) -> None:
        if isinstance(event, Ending):
            event.number = event.number or number
        start_new_thread(event.set, ())

    for number in numbers:
        signal.signal(number, handle)
