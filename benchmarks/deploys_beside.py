"""Deploys of asgictl and of other servers under the same load, one after another, as one table in Markdown."""

import argparse
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil

from asgictl.loadtests.servers import Server, Side, SideError, serving
from asgictl.wire.messages import SERVICE_RESTART
from benchmarks import verdicts
from benchmarks.deploy_load import FRESH, KEPT, Counts, Load
from benchmarks.sides import APPLICATIONS
from benchmarks.verdicts import Reading

SOCKETS = 50
SPACING_SECONDS = 5.0  # from a reload's beginning to the next's
DRAIN_SECONDS = 40.0  # more, for what runs the old code: gunicorn waits 30 s, and takes no signal meanwhile
WARM_SECONDS = 2.0
WORKERS = 2
INTERFACES_SHARE = 4  # of reloads, one of interfaces
ASGICTL = f"asgictl start {APPLICATIONS}:{{target}} --workers {WORKERS} --bind {{{{bind}}}} -d"
GUNICORN = f"gunicorn {APPLICATIONS}:{{target}} -b {{{{bind}}}} -w {WORKERS} --no-control-socket --log-level warning"
UVICORN = f"uvicorn {APPLICATIONS}:asgi --host 127.0.0.1 --port {{port}} --workers {WORKERS} --log-level warning"
GRANIAN = f"granian {APPLICATIONS}:asgi --interface asgi --host 127.0.0.1 --port {{port}} --workers {WORKERS}"
TITLES = (
    *("server", "deploys", "keep-alive requests failed", "fresh requests failed"),
    *("handshakes failed", "sockets closed, by code", "longest stall"),
)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A server, and how it is deployed: by asgictl's command, or by SIGHUP without one. role: what is replaced.

    may_close: with which codes sockets may be closed, once a deploy each; None for a server without bars.
    """

    name: str
    command: str
    how: tuple[str, ...] = ()
    role: str = ""
    sockets: int = SOCKETS
    share: int = 1  # of the reloads
    may_close: tuple[int, ...] | None = None

    def change(self, server: Server) -> None:
        """Begin a deploy; it may go on when this returns."""
        if server.leader is None:
            server.run("asgictl", *self.how)
        else:
            os.kill(server.leader, signal.SIGHUP)

    def processes(self, server: Server) -> set[int]:
        """Return the ids of what runs the code that is deployed."""
        if server.leader is None:
            return {each["pid"] for each in server.status()["processes"] if each["role"] == self.role}
        found = psutil.Process(server.leader).children(recursive=True)
        return {each.pid for each in found if runs_code(each)}


def runs_code(child: psutil.Process) -> bool:
    """Return whether a server's child is one that runs the application."""
    try:
        return child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


@dataclass
class Result:
    """What clients saw of a server's deploys. failure: why it was not measured. undrained: deploys without an end."""

    reloads: int = 0
    undrained: int = 0
    counts: Counts = field(default_factory=Counts)
    failure: str = ""


SERVERS = (
    Deployed("asgictl split, workers", ASGICTL.format(target="echo"), ("reload",), "worker", may_close=()),
    Deployed(
        "asgictl split, interfaces", ASGICTL.format(target="echo"), ("reload", "--interfaces"), "interface",
        share=INTERFACES_SHARE, may_close=(),
    ),
    Deployed(
        "asgictl in-process", ASGICTL.format(target="asgi") + " --mode inprocess", ("reload",), "server",
        may_close=(SERVICE_RESTART,),
    ),
    Deployed("uvicorn --workers, HUP", UVICORN + " --no-access-log"),
    Deployed("gunicorn gthread, HUP", GUNICORN.format(target="wsgi") + " -k gthread --threads 4", sockets=0),
    Deployed("gunicorn asgi, HUP", GUNICORN.format(target="asgi") + " -k asgi"),
    Deployed("gunicorn + uvicorn-worker, HUP", GUNICORN.format(target="asgi") + " -k uvicorn_worker.UvicornWorker"),
    Deployed("granian, HUP", GRANIAN + " --no-access-log --log-level warning"),
)  # fmt: skip


def deploys(arguments: argparse.Namespace) -> Iterator[Reading]:
    """Measure all servers, and print the table."""
    rows = []
    for each in SERVERS:
        try:
            result = measured(each, max(1, arguments.reloads // each.share))
        except (SideError, OSError, EOFError, RuntimeError, psutil.Error) as error:
            result = Result(failure=str(error))
        if each.may_close is not None and result.failure:
            yield Reading(each.name, float("inf"), 0, "", result.failure)
        elif each.may_close is not None:
            yield from verdicts.deploys(each.name, result.counts, each.may_close)
        else:
            print(f"{each.name}: {result.failure or verdicts.shown(result.counts)}", flush=True)
        rows.append(row(each.name, result))
    print("\n".join(["", *map(line, [TITLES, ["---"] * len(TITLES), *rows]), ""]), flush=True)


def measured(side: Deployed, reloads: int) -> Result:
    """Deploy one server so many times, evenly spaced, under load."""
    result = Result(reloads)
    with serving(Side(side.name, side.command)) as server:
        with Load(server.port, side.sockets) as load:
            time.sleep(WARM_SECONDS)
            before = side.processes(server)
            for _ in range(reloads):
                due = time.monotonic() + SPACING_SECONDS
                load.reload()
                side.change(server)
                time.sleep(max(0, due - time.monotonic()))
                before, is_drained = replaced(side, server, before)
                result.undrained += not is_drained
        result.counts = load.counts
    return result


def replaced(side: Deployed, server: Server, before: set[int]) -> tuple[set[int], bool]:
    """Wait until none of the processes of before is left. Return the others, and whether that came to be.

    Raises SideError when there are no others: nothing was deployed.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    while (now := side.processes(server)) & before or not now:
        if time.monotonic() > deadline:
            if not now - before:
                raise SideError(f"nothing was deployed within {SPACING_SECONDS + DRAIN_SECONDS:.0f} s")
            return now - before, False
        time.sleep(0.2)
    return now, True


def row(name: str, result: Result) -> list[str]:
    """Return a line of the table."""
    if result.failure:
        return [name, f"not measured: {result.failure.splitlines()[0]}", *[""] * (len(TITLES) - 2)]
    counts = result.counts
    undrained = f", {result.undrained} not drained in {SPACING_SECONDS + DRAIN_SECONDS:.0f} s"
    silently = f", {counts.unannounced} after a silent close"
    closed = [f"{times:,} × {code or 'no echo'}" for code, times in sorted(counts.closed.items())]
    return [
        name,
        f"{result.reloads}{undrained if result.undrained else ''}",
        f"{counts.failed[KEPT]:,} of {counts.requests[KEPT]:,}{silently if counts.unannounced else ''}",
        f"{counts.failed[FRESH]:,} of {counts.requests[FRESH]:,}",
        f"{counts.handshakes_failed:,} of {counts.handshakes:,}" if counts.handshakes else "–",
        (", ".join(closed) or "0") if counts.handshakes else "–",
        f"{counts.longest_seconds:.2f} s",
    ]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
