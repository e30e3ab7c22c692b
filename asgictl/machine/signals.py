"""What asks a process to end."""

import signal
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable

AGAIN_SECONDS = 0.5  # within which a second one is the first once more, passed on by a shell or a tool


class Ending(threading.Event):
    """Set by a signal. number: the first one's, 0 before. again: called when somebody asks once more, not by SIGHUP."""

    number: int = 0
    again: Callable[[], object] | None = None
    _heard_at = 0.0

    def hear(self, number: int) -> None:
        """Note a signal."""
        now = time.monotonic()
        if not self.number:
            self.number, self._heard_at = number, now
        elif self.again and number != signal.SIGHUP and now - self._heard_at > AGAIN_SECONDS:
            self.again()
        self.set()


def told_to_end() -> Ending:
    """Return an event that SIGINT, SIGTERM and SIGHUP set from now on: a command that drains looks at it."""
    ending = Ending()
    on_signal(ending.hear, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return ending


def on_signal(hear: Callable[[int], None], *numbers: int) -> None:
    """Have signals heard. In a thread: a handler runs in the main one, which may hold the lock of an event."""
    for number in numbers:
        signal.signal(number, lambda number, _frame: start_new_thread(hear, (number,)))
