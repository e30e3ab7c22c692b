"""gunicorn with asgictl's settings: those in supervisor.conf, then those of the user's own, which are checked.

gunicorn reads gunicorn.conf.py in its directory, or the file that GUNICORN_CMD_ARGS names, then that variable, then its
command line, which is supervisor.conf's and wins.
"""

import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app import base
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter

from asgictl.errors import StartError
from asgictl.interface.server_options import check_gunicorn, gunicorn_settings
from asgictl.machine.processes import note_exit


class NotingArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master, which notes for the controller how its servers end."""

    def reap_workers(self) -> None:
        """Reap them."""
        if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
            for pid in self.WORKERS:
                note_exit(Path(os.environ["ASGICTL_RUN_DIR"]), pid)
        super().reap_workers()


class Gunicorn(WSGIApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own application. silent_seconds: below which no timeout of its is."""

    def __init__(self, silent_seconds: float) -> None:
        self._silent_seconds = silent_seconds
        self._mistakes: list[str] = []
        base.Arbiter = NotingArbiter
        super().__init__("%(prog)s [OPTIONS] [APP_MODULE]")

    def load_config(self) -> None:
        """Load all settings, the last of them what `--gunicorn-option` gave. Raises StartError with all mistakes."""
        super().load_config()
        arguments = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
        given = {name: value for name, value in vars(arguments).items() if value is not None}
        self._mistakes += check_gunicorn("GUNICORN_CMD_ARGS", given)
        if self._mistakes:
            raise StartError("\n".join(self._mistakes))
        for name, value in gunicorn_settings(shlex.split(os.environ.get("ASGICTL_GUNICORN_OPTION", ""))).items():
            self.cfg.set(name, value)
        process, instance = os.environ.get("SUPERVISOR_PROCESS_NAME", "server"), os.environ.get("ASGICTL_NAME", "")
        self.cfg.set("default_proc_name", f"{process} of {instance}")
        self.cfg.set("when_ready", _with_inherited_listener(self.cfg.when_ready))
        if self.cfg.timeout:  # 0 is for ever
            self.cfg.set("timeout", max(self.cfg.timeout, math.ceil(self._silent_seconds)))

    def load_config_from_module_name_or_filename(self, location: str) -> dict[str, Any]:
        """Load gunicorn's file, and check it."""
        found: dict[str, Any] = super().load_config_from_module_name_or_filename(location)
        self._mistakes += check_gunicorn(location.removeprefix(os.getcwd() + os.sep), found)
        return found


def check() -> None:
    """Load the settings as a server would here; exits with 1 once it has said what is wrong.

    To be called in a process of its own: gunicorn's file is the user's code.
    """
    sys.argv = ["gunicorn", "app"]
    Gunicorn(0)


def _with_inherited_listener(when_ready: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return a hook by which gunicorn leaves a Unix socket's path alone when it ends: the socket is supervisord's."""

    def hook(arbiter: Any) -> None:
        arbiter.systemd = True  # whose sockets gunicorn does not unlink either
        when_ready(arbiter)

    return hook
