"""When what looks now and then does so: all of one process together, so that an idle one wakes seldom."""

import os
from time import monotonic

GOLDEN = 0.618034  # spreads the processes of an instance evenly: they do not all ask Redis at once
LEAST_SHARE = 0.1  # of a time that is waited for at least: a timer may come a moment too early


def until_tick(seconds: float) -> float:
    """Return how long it is until the next tick of those that come each so many seconds."""
    left = seconds - (monotonic() + os.getpid() * GOLDEN) % seconds
    return left if left > seconds * LEAST_SHARE else left + seconds
