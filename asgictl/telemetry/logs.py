"""How processes log: lines for people, or a JSON object a line for programs; no password of a URL in either."""

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime

_SECRET = re.compile(
    r"((?:rediss?|unix)://)\S*(@)"  # to the last @: redis-py takes a password that should have been encoded
    r"|(://)[^\s'\"/?#]*(@)|([?&]password=)[^\s'\"&]+|(keyfile_password=).*"
)


def masked(text: str) -> str:
    """Return `text` without what its URLs have before an @, or as a password; nor that of a key file."""
    return _SECRET.sub(r"\1\3\5\6***\2\4", text)


class Lines(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, and its traceback below."""
        return masked(super().format(record))


class JSONLines(logging.Formatter):
    """For programs: time (RFC 3339, UTC), level, logger, message, process, and exc_info where there is one."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked(record.getMessage()),
            "process": self._process,
        }
        if record.exc_info:
            line["exc_info"] = masked(self.formatException(record.exc_info))
        return json.dumps(line)


def formatter(log_format: str, process: str) -> logging.Formatter:
    """Return what writes `log_format` ("human" or "json") for the process of this name."""
    return JSONLines(process) if log_format == "json" else Lines()


def set_up(log_format: str, process: str) -> None:
    """Log to stderr from now on, what would end the process or a thread included."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format, process))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logger = logging.getLogger("asgictl")
    sys.excepthook = lambda *raised: logger.critical("ends by an exception", exc_info=raised)
    threading.excepthook = lambda died: logger.critical(
        "a thread ended by an exception", exc_info=died.exc_value or True
    )
