"""Counts by reason what was rejected or dropped, and logs each reason at most every 10 s."""

import logging
import threading
import time
from collections import Counter

logger = logging.getLogger("asgictl.rejections")
LOG_SECONDS = 10.0  # between two lines about one reason


class Rejections:
    """The counts of one process, from any thread. Reasons are a fixed few words, never what a client chose."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._quiet: Counter[str] = Counter()  # not yet logged
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, reason: str, count: int = 1) -> None:
        """Count something that was rejected or dropped, and log it: now, or with later ones of its reason."""
        with self._lock:
            self._counts[reason] += count
            self._quiet[reason] += count
            if time.monotonic() - self._logged.get(reason, -LOG_SECONDS) >= LOG_SECONDS:
                self._log(reason)

    def snapshot(self) -> dict[str, int]:
        """Return the counts, and log those that are due. Call it each second."""
        with self._lock:
            for reason in [reason for reason, count in self._quiet.items() if count]:
                if time.monotonic() - self._logged[reason] >= LOG_SECONDS:
                    self._log(reason)
            return dict(self._counts)

    def _log(self, reason: str) -> None:
        count, self._quiet[reason] = self._quiet[reason], 0
        self._logged[reason] = time.monotonic()
        logger.warning("%s (count %d; logged at most every %.0f s)", reason, count, LOG_SECONDS)
