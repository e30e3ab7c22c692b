"""What asks a command to end."""

import signal
import threading


def told_to_end() -> threading.Event:
    """Return an event that SIGINT, SIGTERM and SIGHUP set from now on: a command that drains looks at it."""
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: ending.set())
    return ending
