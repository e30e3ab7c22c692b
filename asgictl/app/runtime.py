"""What an application may ask about where it runs, and what is logged when it fails."""

import contextlib
import logging
import os
import resource
import sys
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("asgictl.application")


@dataclass(frozen=True, slots=True)
class Runtime:
    """mode: "split" or "inprocess". worker: the name of the process that runs the application, as in `status`."""

    mode: str
    worker: str
    target: str = "the application"

    @property
    def pid(self) -> int:
        """This process's id."""
        return os.getpid()


_runtime = Runtime("inprocess", "python")  # an application imported by something that is not asgictl


def current() -> Runtime:
    """Return where this process's application runs."""
    return _runtime


def enter(runtime: Runtime) -> None:
    """Set it; called once, by what runs the application, before it is imported.

    From here on the standard input of this process, and of programs that the application starts, is /dev/null.
    """
    global _runtime
    _runtime = runtime
    if sys.__stdin__:  # else descriptor 0 was closed at first, and may be anything now
        with open(os.devnull) as null:
            os.dup2(null.fileno(), 0)


class _Failures(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"{_runtime.target}: {msg}", kwargs


failures: _Failures = _Failures(logger)  # for what the application raises: one line names TARGET and the event


def raise_file_limit() -> None:
    """Let this process have as many files and sockets open as it may: the soft limit is often 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says unlimited, and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
