"""How processes log: lines for people, or a JSON object a line for programs; no password of a URL in either.

asgictl's handler is on its own loggers and those of the servers that it hosts. The root logger is the application's:
its basicConfig() and dictConfig() are effective, and none of ours is disabled by them.
"""

import faulthandler
import json
import logging
import re
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

ours = logging.getLogger("asgictl")
_ROOMS = ("access", "application", "controller", "edge", "handover", "hosting", "interface", "layers")
OURS = (
    "asgictl",
    *(f"asgictl.{each}" for each in (*_ROOMS, "lifespan", "readiness", "rejections", "roles", "worker", "wsgi")),
)
SERVERS = ("uvicorn", "hypercorn", "daphne")  # gunicorn's loggers have handlers of its own
STDERR = 2
STACKS = signal.SIGURG  # asks for them: ignored where nobody listens, and used by nothing else (golang/proposal#24543)
_SECRET = re.compile(
    r"((?:rediss?(?:\+sentinel)?|unix)://)\S*(@)"  # to the last @: redis-py takes it unencoded
    r"|(://)[^\s'\"/?#]*(@)|([?&]\w*password=)[^\s'\"&]+|(keyfile_password=).*"
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


class _Lasting(logging.Logger):
    """A logger that dictConfig() cannot disable: by default it disables all that it does not name."""

    disabled = property(lambda _: False, lambda _logger, _disabled: None)


class _Rest(logging.StreamHandler[TextIO]):
    """Writes what no handler of the application's has written to a standard stream, as Django's does with DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nobody below the root logger has written it."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger and logger is not logging.root:
            for each in logger.handlers:
                is_shown = getattr(each, "stream", None) in (sys.stdout, sys.stderr)
                if is_shown and record.levelno >= each.level and each.filter(record):
                    return False
            logger = logger.parent
        return True


def set_up(log_format: str, process: str) -> None:
    """Log to stderr from now on, what would end the process or a thread included, and stacks where asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format, process))
    for name in (*OURS, *SERVERS, "uvicorn.error", "gunicorn.error", "hypercorn.error"):
        logging.getLogger(name).__class__ = _Lasting
    for name in ("asgictl", *SERVERS):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False
    logging.lastResort = handler  # until TARGET is imported: what its module logs, and has set up no handler for
    sys.excepthook = lambda *raised: ours.critical("ends by an exception", exc_info=raised)
    threading.excepthook = lambda died: ours.critical("a thread ended by an exception", exc_info=died.exc_value or True)
    faulthandler.enable(STDERR, all_threads=False)
    faulthandler.register(STACKS, STDERR)


def take_rest() -> None:
    """Write what the application logs, once it is set up, unless it has given the root logger a handler itself."""
    if logging.lastResort and not logging.root.handlers:
        rest = _Rest()
        rest.setFormatter(logging.lastResort.formatter)
        logging.root.addHandler(rest)
