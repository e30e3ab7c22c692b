"""asgictl: one application, served split across processes or in-process."""

__version__ = "0.1.0"

from asgictl.application import Application, Group, path
from asgictl.turn import Message

__all__ = ["Application", "Group", "Message", "__version__", "path"]
