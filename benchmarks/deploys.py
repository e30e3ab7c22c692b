"""Deploys under load: sockets that count and requests at a steady pace, while a server is changed twenty times."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from asgictl.loadtests.servers import Server, Side, SideError, serving
from asgictl.wire.messages import SERVICE_RESTART
from benchmarks.numbered import Load
from benchmarks.verdicts import Reading

CHANGES = 20
SOCKETS = 500
REQUESTS_PER_SECOND = 500
WORKING = """
import sys
sys.path.append({root!r})
from benchmarks.numbered import app
"""
LIFESPAN = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})
"""
BROKEN = (  # what is deployed, and what the command must say of it
    ("def (", "invalid syntax"),
    ("import absent_module", "absent_module"),
    (LIFESPAN, "the cellar is flooded"),
    ("import time; print('waits for a database', flush=True); time.sleep(600)", "waits for a database"),
)


def changed(
    name: str, side: Side, seconds: float, change: Callable[[Server, int], None], *, again: bool = False
) -> Reading:
    """Change a server CHANGES times under load, and count what failed.

    again: sockets open again. One that ended with 1012 has failed nothing then.
    """
    loaded = partial(Load, sockets=SOCKETS, pace_seconds=1, requests_per_second=REQUESTS_PER_SECOND, again=again)
    with serving(side) as server, loaded(server.url, listeners=0 if again else 2) as load:
        for number in range(CHANGES):
            began = time.monotonic()
            change(server, number)
            time.sleep(max(0, seconds / CHANGES - (time.monotonic() - began)))
    closed = sum(times for code, times in load.closed.items() if code != SERVICE_RESTART)
    failed = len(load.wrong) + (closed if again else 0)
    by_code = ", ".join(f"{times} with {code}" for code, times in sorted(load.closed.items()))
    note = (
        f"{load.messages} messages, {load.requests} requests, longest stall {load.longest_stall_seconds:.2f} s; "
        f"sockets closed: {by_code or 'none'}; requests failed: {load.failed}; {'; '.join(load.wrong[:3])}"
    )
    return Reading(name, failed, 0, "", note)


def reload(server: Server, _number: int) -> None:
    server.run("asgictl", "reload")


def consumers(arguments: argparse.Namespace) -> Iterator[Reading]:
    side = Side("deploys-consumers", "asgictl start benchmarks.numbered:app --workers 2 --bind {bind} -d")
    yield changed("deploys-consumers", side, arguments.deploys, reload)


def asgi(arguments: argparse.Namespace) -> Iterator[Reading]:
    drain = f"--drain-seconds {arguments.deploys / CHANGES / 3:.1f}"
    side = Side("deploys-asgi", f"asgictl start benchmarks.numbered:asgi --workers 2 --bind {{bind}} {drain} -d")
    yield changed("deploys-asgi", side, arguments.deploys, reload, again=True)


def scaling(arguments: argparse.Namespace) -> Iterator[Reading]:
    def scale(server: Server, number: int) -> None:
        server.run("asgictl", "scale", f"worker={(4, 1)[number % 2]}")

    side = Side("scaling", "asgictl start benchmarks.numbered:app --workers 1 --bind {bind} -d")
    yield changed("scaling", side, arguments.deploys, scale)


def broken(arguments: argparse.Namespace) -> Iterator[Reading]:
    silent: list[str] = []

    def deploy(server: Server, number: int) -> None:
        code, cause = BROKEN[number % len(BROKEN)]
        Path("deployed.py").write_text(code)
        before = server.pids()
        try:
            server.run("asgictl", "reload")
            silent.append(f"{cause}: it was deployed")
        except SideError as error:
            if cause not in str(error):
                silent.append(f"{cause} is not in: {error}")
        if server.pids() != before:
            silent.append(f"{cause}: not the processes of before")

    options = "--workers 2 --start-seconds 5 --bind {bind} -d"
    with TemporaryDirectory() as directory:
        Path(directory, "deployed.py").write_text(WORKING.format(root=os.getcwd()))
        with chdir(directory):
            side = Side("broken-deploys", f"asgictl start deployed:app {options}")
            yield changed("broken-deploys", side, arguments.deploys, deploy)
    yield Reading("broken untold", len(silent), 0, "", "; ".join(silent[:3]))
