"""asgictl: one application, served split across processes or in-process."""

__version__ = "0.1.0"

from asgictl.application import Application, Channel, Group, path
from asgictl.background import BackgroundMessage, RetryLater
from asgictl.turn import Message

__all__ = ["Application", "BackgroundMessage", "Channel", "Group", "Message", "RetryLater", "__version__", "path"]
