"""Measures one side once: a load of one kind, and what each role of the side uses meanwhile."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import uvloop

from asgictl.loadtests.servers import Server, Side, serving
from asgictl.loadtests.usage import Usage
from benchmarks import broadcast_client, echo_client
from benchmarks.by_role import Sample

WARM_SECONDS = 2  # in which even the slowest tell 1,000 sockets something
BROADCAST = "ws:/broadcast"  # what is counted are deliveries
UPLOAD = "/upload"  # of 1 MiB each
UPLOAD_SCRIPT = str(Path(__file__).with_name("upload.lua"))


def clients_of(load: str) -> int:
    """Return how many clients a load has unless it is told otherwise."""
    if load.startswith("ws:"):
        return 1000 if load == BROADCAST else 20
    return 4 if load == UPLOAD else 64


def measure(side: Side, seconds: float, clients: int = 0) -> Sample:
    """Start a side, warm it up, measure it and stop it. clients: 0 is clients_of its load.

    Raises SideError, or RuntimeError when any request failed.
    """
    with serving(side) as server:
        usage = Usage(server.runtime, "controller" if side.detached else "server")
        clients = clients or clients_of(side.load)
        drive(server.url, side.load, WARM_SECONDS, clients)
        rate, count = drive(server.url, side.load, seconds, clients, usage.sample)
        check_tree(server, usage)
        return Sample(rate, {role: used * 1e6 / count for role, used in usage.cpu(0, time.time()).items()})


def check_tree(server: Server, usage: Usage) -> None:
    """Raise RuntimeError unless what runs has been imported from the tree that the side names."""
    if server.tree is None:
        return
    command = [sys.executable, "-P", "-c", "import asgictl; print(asgictl.__file__)"]
    found = subprocess.run(
        command, env=server.environment, cwd=server.tree, capture_output=True, text=True, check=True
    ).stdout.strip()
    if Path(found) != server.tree / "asgictl" / "__init__.py":
        raise RuntimeError(f"{server.tree} was asked for, and {found} is imported")
    for role, pids in usage.pids.items():
        for pid in pids if role != "redis" else ():  # whose title stands where its environment was
            if (path := psutil.Process(pid).environ().get("PYTHONPATH")) != str(server.tree):
                raise RuntimeError(f"{server.tree} was asked for, and a process of {role} imports from {path}")


def drive(
    url: str, load: str, seconds: float, clients: int, sample: Callable[[], object] = lambda: None
) -> tuple[float, int]:
    """Return requests, echoes or deliveries a second, and how many there were between two calls of `sample`.

    Raises RuntimeError when any request failed.
    """
    if load.startswith("ws:"):
        client = broadcast_client if load == BROADCAST else echo_client
        driven: tuple[float, int] = uvloop.run(
            client.drive(url.replace("http", "ws") + load[3:], clients, seconds, sample)
        )
        return driven
    script = ["-s", UPLOAD_SCRIPT] if load == UPLOAD else []
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", *script, url + load]
    sample()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sample()
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"requests failed:\n{said}")
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    if not rate or not count:
        raise RuntimeError(f"wrk said no rate:\n{said}")
    return float(rate[1]), int(count[1])
