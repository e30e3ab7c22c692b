"""The runtime as an application sees it, and the log of its failures."""

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
    """Return the Runtime of this process."""
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
    """Raise the soft limit of open files, often 1,024, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says unlimited, and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
