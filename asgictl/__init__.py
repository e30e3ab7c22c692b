"""asgictl: one application, served split across processes or in-process."""

from asgictl.application import Application, Group, path

__all__ = ["Application", "Group", "__version__", "path"]

__version__ = "0.1.0"
