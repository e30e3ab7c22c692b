"""Lines of logs: when each was written, how grave it is, and how it is shown. Without I/O.

asgictl's processes, supervisord and Redis each write a format of their own. Shown, all are alike: supervisord's ends of
processes and Redis's warnings are put into asgictl's format, and the rest of what these two write is left out.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

# Also basicConfig()'s, without a time, and Flask's, "[time] ERROR in app: ...".
_OURS = re.compile(r"(?:\[?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]? )?([A-Z]{4,8})[ :]")
_REDIS = re.compile(r"\d+:[A-Z] ([0-3]\d [A-Z][a-z]{2} \d{4} [0-2]\d:[0-5]\d:[0-5]\d\.\d{3}) ([.*#-]) (.*)")
_BANNER = re.compile("oO0OoO0OoO0Oo|(Redis|Valkey) version=|Configuration loaded|Server initialized")  # Redis 6.2's
_ENDS = ("exited: ", "gave up: ")  # supervisord's words for what nobody asked for
_LEVELS = logging.getLevelNamesMapping() | {"CRIT": logging.CRITICAL, "ERRO": logging.ERROR}
FOREIGN = ("redis", "supervisord")  # in formats of their own


class Line(NamedTuple):
    """at: by time.time(). level: logging's. text: as it is shown."""

    at: float
    process: str
    level: int
    text: str

    def as_json(self) -> str:
        """Return it as one JSON object, which it is already unless somebody else has written it, such as print()."""
        if self.text.startswith("{"):
            return self.text
        if self.process not in FOREIGN:
            return json.dumps({"process": self.process, "message": self.text})
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        level, message = logging.getLevelName(self.level), self.text.partition(": ")[2]
        return json.dumps(
            {"time": at, "level": level, "logger": self.process, "message": message, "process": self.process}
        )


class Lines:
    """Parses the log of one process, from its first line or any other on."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._at = 0.0
        self._level = logging.INFO
        self._is_shown = process not in FOREIGN

    def parse(self, texts: Iterable[str], at: float, *, is_strict: bool = False) -> list[Line]:
        """Return the lines that are shown. A line without a time, as of a traceback, has that of the one before it.

        at: when those were written that no time precedes; what follows them, where it has a time, says better.
        is_strict: leave these out where anything has a time: they may be much older than it.
        """
        found = [line for text in texts for line in self._line(text)]
        if is_strict and any(line.at for line in found):
            return [line for line in found if line.at]
        first = next((line.at for line in found if line.at), at)
        return [line if line.at else line._replace(at=first) for line in found]

    def _line(self, text: str) -> Iterator[Line]:
        if self._process == "redis":
            text = self._redis(text)
        elif self._process == "supervisord":
            text = self._supervisord(text)
        elif text.startswith("{"):
            self._json(text)
        elif match := _OURS.match(text):
            self._note(match[1], match[2])
        if self._is_shown:
            yield Line(self._at, self._process, self._level, text)

    def _note(self, stamp: str | None, level: str) -> None:
        with suppress(ValueError):  # digits that are no time
            self._at = datetime.fromisoformat(stamp).timestamp() if stamp else self._at
        self._level = _LEVELS.get(level, self._level)

    def _json(self, text: str) -> None:
        try:
            fields = json.loads(text)
            self._at = datetime.fromisoformat(fields["time"]).timestamp()
            self._level = _LEVELS.get(fields["level"], self._level)
        except (ValueError, LookupError, TypeError):  # an application's own
            pass

    def _redis(self, text: str) -> str:
        if match := _REDIS.match(text):
            stamp = datetime.strptime(match[1], "%d %b %Y %H:%M:%S.%f")  # local, as Redis writes it
            self._is_shown = match[2] == "#" and not _BANNER.search(match[3])
            self._note(str(stamp), "WARNING")
            return f"{stamp:%Y-%m-%d %H:%M:%S},{stamp.microsecond // 1000:03} WARNING redis: {match[3]}"
        return text

    def _supervisord(self, text: str) -> str:
        if match := _OURS.match(text):
            message = text[match.end() :]
            self._is_shown = message.startswith(_ENDS) or match[2] == "ERRO"
            level = "ERROR" if message.startswith("gave up") else "INFO" if match[2] == "INFO" else "WARNING"
            self._note(match[1], level)
            return f"{match[1]} {level} supervisord: {message}"
        return text
