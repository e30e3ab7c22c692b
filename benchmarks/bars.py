"""make bars: what split may cost at most, whoever it is compared with.

latency         p50 of one client: split less uvicorn with the same hello as plain ASGI, median of three runs in turn
idle            memory of the interface for each of 10,000 idle WebSockets
resting         CPU of an instance with two workers while nothing happens
crowd           30,000 idle sockets, or what open files allow, held for --crowd seconds: what did not open, what closed
storm           5,000 sockets that are cut and come back at once: what does not open again, and how long it takes
layer-latency   p50 from a channel layer's send to receive between two processes: ours by channels_redis core's
memberships     memory of a process for each of 100,000 memberships in 10,000 groups
groups          10,000 numbered messages to a group while Redis connections are cut 50 times, a worker killed 10 times
slow-neighbour  the longest of fast requests on two workers: beside one of 5 s, less without it
upload          memory of any process, Redis's included, while 1 GiB goes up
download        the same while 1 GiB goes down to a slow reader
events          server-sent events: the longest from being sent to being read
long-polls      1,000 requests that take 10 s each, on one worker: how many were not answered, and how long they took
overload        ten times the capacity: the answers, memory once it has settled, p50 two seconds after
background      10,000 delayed jobs, while Redis is killed, and the controller: how many were lost, early or repeated
deploys         --reloads of asgictl, uvicorn, gunicorn and granian in turn, under 450 requests a second and 50 sockets
                that open again: what failed, what closed and how, as a table; bars for asgictl alone
deploys-consumers  20 reloads in --deploys seconds of 500 sockets and 500 requests a second: what closed, or failed
deploys-asgi    the same with sockets of an ASGI application: what ended otherwise than by its worker's drain
broken-deploys  the same as deploys-consumers with 20 that do not start: what closed or failed, what reload left unsaid
scaling         the same as deploys-consumers, between one worker and four
handover        20 reloads of interfaces, 10 of workers, 5 of everything, mixed, in --deploys seconds of 500 sockets and
                400 requests a second: what closed, failed, was lost, repeated or reordered; the longest stall above
                that of a plain uvicorn under the same load
handover-crowd  10,000 sockets that move at once: what closed, how long it takes, memory of both by one's before
faults          200 sockets and 200 requests a second beside a held GIL, exits, empty fragments, a full disk: sockets
                closed, what was lost, repeated or reordered, the longest stall
hostile         dripping connections, endless headers and fragments, pings whose pongs nobody reads, refused handshakes,
                in both modes: memory of any process, and p99 of neighbours less that without
links           200 sockets and requests beside connections to Redis that freeze (of the interface, workers, the
                controller, all), a Redis that stalls for 20 s, and one that is away for 60 s: sockets closed, what was
                lost, repeated or reordered, requests that failed, the longest stall
soak            sockets that come and go while workers are killed, for --soak seconds: errors, memory afterwards

Exits 1 when a bar is not met.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from itertools import repeat
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory

import redis
import uvloop

from asgictl.app.runtime import raise_file_limit
from asgictl.interface.groups import Groups
from asgictl.loadtests.servers import Server, Side, SideError, serving
from asgictl.wire.messages import Frame
from benchmarks import crowd, culprits, deploys, deploys_beside, handover, layers, links, verdicts
from benchmarks.applications import EVENTS, GIBIBYTE
from benchmarks.closed_loop import Answer, ask, times
from benchmarks.hostile import handshake, hostile
from benchmarks.jobs import notes, send_all
from benchmarks.memory import Memory, resident_bytes
from benchmarks.numbered import Load
from benchmarks.sides import in_turn, split, uvicorn
from benchmarks.verdicts import MIB, Reading

ROUNDS = 3
SECONDS = 3  # of a measurement of one client
SOCKETS = 10_000  # opened before the first has missed a pong
NEIGHBOURS = 8
NEIGHBOUR_SECONDS = 8  # a slow request's five, and time around it
PACE = 5_000_000  # bytes a second
PACED_BYTES = 100_000_000
POLLS = 1000
CAPACITY = 100
JOBS = 10_000
FIRST_SECONDS = 10  # the first job's delay, and what the last has to run in
SPREAD_SECONDS = 20  # from the first to the last
WAVE_SOCKETS = 100
MEMBERS = 100_000
GROUPS = 10_000
MESSAGES = 10_000
CUTS = 50
KILLS = 10
WARMING_WAVES = 6
RETENTION_SECONDS = 70  # after which no broadcast is kept
WAVE_SECONDS = 10
SETTLE_SECONDS = 10
RECOVERY_SECONDS = 2
BODY_SECONDS = 120  # without a byte
FAULTS = (RuntimeError, SideError, ValueError, OSError, EOFError, HTTPException, SubprocessError)


def latency(_arguments: argparse.Namespace) -> Iterator[Reading]:
    def took(side: Side) -> list[float]:
        with serving(side) as server:
            uvloop.run(times(server.port, "/", 1))
            return uvloop.run(times(server.port, "/", SECONDS))

    yield verdicts.latency(*in_turn(ROUNDS, took, split("wsgi"), uvicorn("asgi")))


def idle(_arguments: argparse.Namespace) -> Iterator[Reading]:
    with serving(split("echo", "ws:/ws")) as server, ExitStack() as held:
        interface = server.pids()["interface-00"]
        held.enter_context(open_socket(server.port))  # the first brings more with it than a socket
        before = resident_bytes(interface)
        for _ in range(SOCKETS):
            held.enter_context(open_socket(server.port))
        yield verdicts.idle(before, resident_bytes(interface), SOCKETS)


def open_socket(port: int) -> socket.socket:
    """Open a WebSocket that nobody reads any more."""
    client = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    client.sendall(handshake("/ws"))
    if not client.recv(1 << 16).startswith(b"HTTP/1.1 101 "):
        raise RuntimeError("a handshake was refused")
    return client


def layer_latency(_arguments: argparse.Namespace) -> Iterator[Reading]:
    with layers.redis_url() as url:
        taken = in_turn(ROUNDS, lambda layer: layers.took(layer, url, SECONDS), "ours", "core")
    yield verdicts.layer_latency(*taken)


def memberships(_arguments: argparse.Namespace) -> Iterator[Reading]:
    class Member:
        """As a session: it knows its groups."""

        id = ""

        def __init__(self) -> None:
            self.joined = {""}

        def deliver(self, frame: Frame, may_drop: bool = False) -> None: ...

    groups, members = Groups(), [Member() for _ in range(MEMBERS)]
    before = resident_bytes(os.getpid())
    for number, member in enumerate(members):
        name = f"room-{number % GROUPS}"
        groups.join(name, member, (time.time_ns() // 1_000_000, number))
        member.joined.add(name)
    yield verdicts.memberships(before, resident_bytes(os.getpid()), MEMBERS, GROUPS)


def groups(_arguments: argparse.Namespace) -> Iterator[Reading]:
    side = Side("groups", "asgictl start benchmarks.numbered:app --workers 2 --bind {bind} -d")
    with serving(side) as server:
        path = f"{server.environment['XDG_RUNTIME_DIR']}/asgictl/default/redis.sock"
        with (
            redis.Redis(unix_socket_path=path) as client,
            Load(server.url, sockets=50, pace_seconds=0.05, listeners=20, http=False) as load,
        ):
            done = 0
            while load.messages < MESSAGES and not load.wrong:
                if done < CUTS and load.messages >= MESSAGES * done // (CUTS + 1):
                    client.client_kill_filter(_type="normal", skipme=True)
                    done += 1
                    if done % (CUTS // KILLS) == 0:
                        os.kill(server.pids()["worker-00"], signal.SIGKILL)
                time.sleep(0.05)
    note = f"{load.messages} messages to 20 listeners, {done} cuts, {done * KILLS // CUTS} kills; " + "; ".join(
        load.wrong[:3]
    )
    yield Reading("groups", len(load.wrong) + (load.messages < MESSAGES), 0, "", note)


def slow_neighbour(_arguments: argparse.Namespace) -> Iterator[Reading]:
    async def slow(port: int) -> None:
        await asyncio.sleep(1)
        await times(port, "/slow", 0.1)

    async def beside(port: int) -> list[float]:
        found, _ = await asyncio.gather(times(port, "/", NEIGHBOUR_SECONDS, NEIGHBOURS), slow(port))
        return found

    with serving(split("wsgi", workers=2)) as server:
        alone = uvloop.run(times(server.port, "/", NEIGHBOUR_SECONDS, NEIGHBOURS))
        yield verdicts.slow_neighbour(alone, uvloop.run(beside(server.port)))


def upload(_arguments: argparse.Namespace) -> Iterator[Reading]:
    def carry(connection: HTTPConnection) -> None:
        with suppress(OSError):  # it was answered before its end, and the answer says why
            connection.request("POST", "/", repeat(bytes(MIB), GIBIBYTE // MIB), {"Content-Length": str(GIBIBYTE)})
        response = connection.getresponse()
        body = response.read()
        if (response.status, body) != (200, b"%d" % GIBIBYTE):
            raise RuntimeError(f"1 GiB was answered {response.status}: {body.decode().strip()}")

    yield body("upload", carry)


def download(arguments: argparse.Namespace) -> Iterator[Reading]:
    paced = GIBIBYTE if arguments.full else PACED_BYTES

    def carry(connection: HTTPConnection) -> None:
        connection.request("GET", "/gibibyte")
        response = connection.getresponse()
        began, come = time.perf_counter(), 0
        while piece := response.read1(1 << 16):
            come += len(piece)
            if come < paced:
                time.sleep(max(0, began + come / PACE - time.perf_counter()))
        if (response.status, come) != (200, GIBIBYTE):
            raise RuntimeError(f"was answered {response.status}, and {come} bytes of {GIBIBYTE} came")

    yield body("download", carry, f", {PACE / 1e6:.0f} MB/s for {paced / 1e6:.0f} MB, then at full speed")


def body(name: str, carry: Callable[[HTTPConnection], None], note: str = "") -> Reading:
    """Watch every process while a GiB is carried."""
    with serving(split("bodies")) as server, Memory(server.pids()) as memory:
        connection, began = HTTPConnection("127.0.0.1", server.port, timeout=BODY_SECONDS), time.perf_counter()
        carry(connection)
        rate = GIBIBYTE / MIB / (time.perf_counter() - began)
        connection.close()
    return verdicts.growth(name, memory.before, memory.peak, 64, f"; {rate:.0f} MiB/s{note}")


def events(_arguments: argparse.Namespace) -> Iterator[Reading]:
    with serving(split("asgi")) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=BODY_SECONDS)
        connection.request("GET", "/events")
        response = connection.getresponse()
        late = [time.time() - float(line.split()[1]) for line in response if line.startswith(b"data:")]
    yield verdicts.events(late, EVENTS)


def long_polls(_arguments: argparse.Namespace) -> Iterator[Reading]:
    with serving(split("asgi")) as server:
        yield verdicts.long_polls(uvloop.run(times(server.port, "/poll", 0.1, POLLS)), POLLS)


def overload(arguments: argparse.Namespace) -> Iterator[Reading]:
    with serving(split("wsgi", options=f"--capacity {CAPACITY}")) as server:
        yield from uvloop.run(overloaded(server, server.pids(), arguments.seconds))


async def overloaded(server: Server, pids: dict[str, int], seconds: float) -> list[Reading]:
    counts: Counter[tuple[int, bool]] = Counter()

    def heard(answer: Answer) -> None:
        counts[answer.status, answer.retry_after] += 1

    loop = asyncio.get_running_loop()
    usual = await times(server.port, "/", SECONDS)
    stop_at = loop.time() + seconds
    clients = [loop.create_task(ask(server.port, "/sleep", seconds, heard)) for _ in range(10 * CAPACITY)]
    await asyncio.sleep(min(SETTLE_SECONDS, seconds / 2))
    with Memory(pids) as memory:
        await asyncio.sleep(stop_at + RECOVERY_SECONDS - loop.time())
    lost = sum(not client.done() or client.exception() is not None for client in clients)
    return [
        verdicts.refusals(counts, lost),
        verdicts.growth("overload memory", memory.before, memory.peak, 16),
        verdicts.recovery(usual, await times(server.port, "/", SECONDS)),
    ]


def background(_arguments: argparse.Namespace) -> Iterator[Reading]:
    side = Side("background", "asgictl start benchmarks.jobs:app --workers 2 --bind {bind} -d")
    with serving(side) as server, TemporaryDirectory() as directory:
        log = Path(directory) / "ran"
        redis_url = f"unix://{server.environment['XDG_RUNTIME_DIR']}/asgictl/default/redis.sock"
        send_all(redis_url, log, [FIRST_SECONDS + SPREAD_SECONDS * number / JOBS for number in range(JOBS)])
        for process in ("redis", "controller"):
            os.kill(server.pids()[process], signal.SIGKILL)
            time.sleep(SPREAD_SECONDS / 2)
        time.sleep(FIRST_SECONDS)
        late: dict[int, list[float]] = {}
        for note in notes(log):
            late.setdefault(note.number, []).append(note.late_seconds)
        yield verdicts.background(late, JOBS)


def soak(arguments: argparse.Namespace) -> Iterator[Reading]:
    """The first waves, which are not measured, let every process reach its usual size."""
    side = Side("soak", "asgictl start benchmarks.numbered:app --workers 2 --bind {bind} -d")
    wrong: list[str] = []
    with serving(side) as server:
        for _ in range(WARMING_WAVES):
            wave(server, wrong)
        before, until = settled(server), time.monotonic() + arguments.soak
        while time.monotonic() < until:
            wave(server, wrong)
        yield from verdicts.soak(before, settled(server), wrong)


def wave(server: Server, wrong: list[str]) -> None:
    """Sockets that come, talk and leave; a worker is killed meanwhile."""
    with Load(server.url, sockets=WAVE_SOCKETS) as load:
        time.sleep(WAVE_SECONDS / 2)
        os.kill(server.pids()["worker-00"], signal.SIGKILL)
        time.sleep(WAVE_SECONDS / 2)
    wrong += load.wrong


def settled(server: Server) -> dict[str, float]:
    """Return what each process holds once nothing happens any more."""
    time.sleep(RETENTION_SECONDS)
    return {name: resident_bytes(pid) for name, pid in server.pids().items()}


BARS = {
    "latency": latency,
    "idle": idle,
    "resting": crowd.resting,
    "crowd": crowd.crowd,
    "storm": crowd.storm,
    "layer-latency": layer_latency,
    "memberships": memberships,
    "groups": groups,
    "slow-neighbour": slow_neighbour,
    "upload": upload,
    "download": download,
    "events": events,
    "long-polls": long_polls,
    "overload": overload,
    "background": background,
    "deploys": deploys_beside.deploys,
    "deploys-consumers": deploys.consumers,
    "deploys-asgi": deploys.asgi,
    "broken-deploys": deploys.broken,
    "scaling": deploys.scaling,
    "handover": handover.handover,
    "handover-crowd": handover.handover_crowd,
    "faults": culprits.faults,
    "hostile": hostile,
    "links": links.links,
    "soak": soak,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BARS)}; all without one")
    parser.add_argument("--seconds", type=float, default=60, help="how long overload lasts (60)")
    parser.add_argument("--deploys", type=float, default=600, help="how long each of the other deploys lasts (600)")
    parser.add_argument("--reloads", type=int, default=20, help="how many times deploys deploys each server (20)")
    parser.add_argument("--crowd", type=float, default=600, help="how long crowd lasts (600)")
    parser.add_argument("--soak", type=float, default=900, help="how long soak lasts (900)")
    parser.add_argument("--full", action="store_true", help="the whole download at 5 MB/s: 215 s")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BARS):
        parser.error(f"no bar {', '.join(sorted(unknown))}; there are {', '.join(BARS)}")
    raise_file_limit()  # 10,000 sockets need as many, here and in the servers, which inherit the limit
    print(f"{'bar':<32}{'figure':>9}{'at most':>9}")
    met = True
    for name in arguments.names or BARS:
        try:
            for reading in BARS[name](arguments):
                print(reading, flush=True)
                met = met and reading.met
        except FAULTS as error:
            print(f"{name:<32}NOT met: {error}", flush=True)
            met = False
    sys.exit(not met)


if __name__ == "__main__":
    main()
