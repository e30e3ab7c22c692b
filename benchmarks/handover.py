"""Sockets that move to another process: under load while everything but Redis is replaced, and 10,000 at once."""

import argparse
import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import uvloop

from asgictl.loadtests.servers import Server, Side, SideError, serving
from asgictl.machine.processes import asked
from benchmarks import crowd, verdicts
from benchmarks.numbered import Load
from benchmarks.sides import split
from benchmarks.verdicts import Reading

CHANGES = [*[("reload", "--interfaces")] * 20, *[("reload",)] * 10, *[("reload", "--all")] * 5]
SOCKETS = 500
WORKERS = 4  # of 100 asynchronous turns each
LISTENERS = 4  # members of the group to which each message goes
REQUESTS_PER_SECOND = 400
BESIDE = 5  # as long as this part of it the same load is on uvicorn
WARM_SECONDS = 3
MANY = 10_000
MOVED_SECONDS = 60.0
SAMPLE_SECONDS = 0.1
APPLICATION = "benchmarks.numbered"
UVICORN = "--host 127.0.0.1 --port {port} --log-level warning --no-access-log --ws-per-message-deflate false"


def load_of(server: Server, listeners: int) -> Load:
    return Load(
        *(server.url,), sockets=SOCKETS, pace_seconds=0.02, listeners=listeners,
        requests_per_second=REQUESTS_PER_SECOND, paths=("/slowly",),
    )  # fmt: skip


def warm(load: Load) -> None:
    """Wait until all sockets talk; what they waited for until then does not count."""
    time.sleep(WARM_SECONDS)
    load.longest_stall_seconds = 0


def handover(arguments: argparse.Namespace) -> Iterator[Reading]:
    """Replace interfaces, workers and everything, mixed, under load; and have the same load on a plain uvicorn."""
    with (
        serving(Side("uvicorn", f"uvicorn {APPLICATION}:asgi {UVICORN}")) as server,
        load_of(server, listeners=0) as beside,
    ):
        warm(beside)
        time.sleep(arguments.deploys / BESIDE)
    changes, in_flight, failures = random.Random(21).sample(CHANGES, len(CHANGES)), [SOCKETS], list[str]()  # noqa: S311
    side = Side("split", f"asgictl start {APPLICATION}:app --workers {WORKERS} --bind {{bind}} -d")
    with serving(side) as server, load_of(server, LISTENERS) as load:
        warm(load)
        due = time.monotonic()
        for change in changes:
            due += arguments.deploys / len(changes)
            in_flight.append(load.in_flight)
            try:
                server.run("asgictl", *change)
            except SideError as error:
                failures.append(f"{change}: {error}")
            time.sleep(max(0, due - time.monotonic()))
    if beside.wrong:
        raise SideError(f"the load alone was too much: {beside.wrong[:3]}")
    note = f"{load.messages} messages, {load.requests} requests; {'; '.join([*failures, *load.wrong][:3])}"
    yield from verdicts.handover(
        counted(load) | {"commands failed": len(failures)},
        *(note, load.longest_stall_seconds, beside.longest_stall_seconds, min(in_flight) / SOCKETS),
    )


def counted(load: Load) -> dict[str, int]:
    """Return what must not be, by kind."""
    counts = {"closed": load.closed.total(), "requests failed": load.failed}
    counts |= {kind: load.kinds[kind] for kind in ("lost", "repeated", "reordered")}
    return counts | {"else": max(len(load.wrong) - sum(counts.values()), 0)}


def pss_bytes(pid: int) -> float:
    """Return what a process holds, its share of pages that others have too; 0 once it has ended."""
    return asked(lambda: float(psutil.Process(pid).memory_full_info().pss), 0.0)


class Pss(threading.Thread):
    """Samples what the interfaces of an instance hold together, shared pages counted once, until stop()."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._ending = threading.Event()
        self.peak = 0.0

    def run(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(pss_bytes, interfaces(self._server))))

    def stop(self) -> None:
        self._ending.set()
        self.join()


def interfaces(server: Server) -> list[int]:
    """Return the interfaces' process ids, of those that drain too."""
    return [each.pid for each in psutil.process_iter() if asked(partial(is_interface, each, server), False)]


def is_interface(process: psutil.Process, server: Server) -> bool:
    return "interface" in process.cmdline() and process.environ().get("XDG_RUNTIME_DIR") == server.runtime


def handover_crowd(_arguments: argparse.Namespace) -> Iterator[Reading]:
    """Hand over as many sockets as an interface may have, which do nothing meanwhile."""
    with serving(split("echo", "ws:/ws")) as server:
        yield from uvloop.run(crowd_moves(server))


async def crowd_moves(server: Server) -> list[Reading]:
    crowd.Idle.closed = 0
    opened = await crowd.gather(server.url.replace("http", "ws") + "/ws", MANY, crowd.AT_ONCE)
    await asyncio.sleep(WARM_SECONDS)
    (old,) = interfaces(server)
    alone, sampling = pss_bytes(old), Pss(server)
    sampling.start()
    successor = Path(server.runtime, "asgictl", "default", f"successor-{old}")
    changing = asyncio.create_task(asyncio.to_thread(server.run, "asgictl", "reload", "--interfaces"))
    began = await when(successor.exists)
    ended = await when(lambda: not os.path.exists(f"/proc/{old}"))
    await changing
    sampling.stop()
    closed = crowd.Idle.closed
    for transport in opened:
        transport.disconnect()
    return verdicts.handover_crowd(MANY, len(opened), closed, ended - began, alone, sampling.peak)


async def when(condition: Callable[[], bool]) -> float:
    """Wait for a condition; return when it held. Raises SideError at the deadline."""
    deadline = time.monotonic() + MOVED_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SideError(f"not within {MOVED_SECONDS:.0f} s")
        await asyncio.sleep(0.01)
    return time.monotonic()
