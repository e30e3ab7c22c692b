"""manage.py runasgictl: `asgictl start` for development, with runserver's arguments."""

import os
import sys
from argparse import ArgumentParser
from typing import Any

import click
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from asgictl.app.target import DEMO
from asgictl.django import DEVELOPMENT
from asgictl.django.checks import planned

HOSTS = {"": "127.0.0.1", "0": "0.0.0.0"}  # noqa: S104 - runserver's short forms


class Command(BaseCommand):  # type: ignore[misc]  # Django is untyped
    """Check the project, then become `asgictl start`, in the foreground."""

    help = (
        "Starts this project under asgictl for development: deploys on each change, and serves static files while DEBUG"
        " is on. All other options of `asgictl start` come from asgictl.toml, pyproject.toml and the environment."
    )
    requires_system_checks: tuple[str, ...] = ()  # they are called below, with those of databases

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("addrport", nargs="?", help="port or address:port.  [default: asgictl's bind]")
        parser.add_argument("--mode", choices=["split", "inprocess"], help="Where the application runs.")
        parser.add_argument("--workers", help="Processes that run the application.")
        parser.add_argument("--noreload", action="store_true", help="Do not deploy when a Python file changes.")

    def handle(self, *_: Any, **given: Any) -> None:
        """Never return but by an error."""
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
        self.check(display_num_errors=True, databases=list(connections))
        self.check_migrations()
        connections.close_all()
        command = [sys.executable, "-m", "asgictl", "start", target(), "--access-log"]
        if given["addrport"]:
            host, _, port = given["addrport"].rpartition(":")
            command += ["--bind", f"{HOSTS.get(host, host)}:{port}"]
        for name in ("mode", "workers"):
            command += [f"--{name}", given[name]] if given[name] else []
        self.stdout.flush()
        self.stderr.flush()
        os.environ[DEVELOPMENT] = "1"
        os.execv(sys.executable, [*command, *([] if given["noreload"] else ["--reload"])])  # noqa: S606


def target() -> str:
    """Return asgictl's target where one is set, else Django's ASGI_APPLICATION, else its WSGI_APPLICATION."""
    try:
        configured: str = planned()["target"]
    except click.ClickException as error:
        raise CommandError(error.format_message()) from None
    if configured != DEMO:
        return configured
    path = getattr(settings, "ASGI_APPLICATION", None) or settings.WSGI_APPLICATION
    if not path:
        raise CommandError("Set target in asgictl.toml, or WSGI_APPLICATION in Django's settings.")
    module, _, attribute = path.rpartition(".")
    return f"{module}:{attribute}"
