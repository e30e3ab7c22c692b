"""Faults under load: nothing is lost, repeated or out of order at the socket, and no socket closes."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from benchmarks.numbered import Load
from tests.conftest import Machine, until

ROOT = Path(__file__).parents[2]
SOCKETS = int(os.environ.get("ASGICTL_SOCKETS", "40"))  # make soak: 200


@pytest.fixture
def loaded(machine: Machine) -> Machine:
    machine.directory = ROOT
    return machine


def status(machine: Machine) -> list[dict[str, object]]:
    return list(machine.status()["ready"])


def pids(machine: Machine, role: str) -> set[int]:
    return {int(str(report["pid"])) for report in status(machine) if report["role"] == role}


def replaced(machine: Machine, before: set[int], workers: int) -> bool:
    now = pids(machine, "worker")
    return len(now) == workers and len(now - before) == 1


def flows(load: Load, messages: int = 300) -> None:
    """Wait until that many more messages have made their way."""
    goal = load.messages + messages
    until(lambda: load.messages >= goal or load.wrong, "messages flow")


def client_of(machine: Machine) -> redis.Redis:
    return redis.Redis.from_url(f"unix://{machine.runtime}/asgictl/default/redis.sock")


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_workers(loaded: Machine, workers: int) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", str(workers))
    with Load(loaded.url, sockets=SOCKETS) as load:
        for _ in range(4):
            flows(load)
            before = pids(loaded, "worker")
            os.kill(next(iter(before)), signal.SIGKILL)
            until(lambda: replaced(loaded, before, workers), "another is ready")  # noqa: B023 - not kept
        flows(load)
    assert load.wrong == []


def test_a_worker_that_stands_still_for_longer_than_its_lease(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load:
        flows(load)
        before = pids(loaded, "worker")
        still = next(iter(before))
        os.kill(still, signal.SIGSTOP)
        goal = load.messages + SOCKETS * 80
        until(lambda: load.messages > goal or load.wrong, "its work goes on elsewhere")
        with suppress(ProcessLookupError):  # it has been silent for too long, and is gone
            os.kill(still, signal.SIGCONT)
        until(lambda: still not in pids(loaded, "worker") and len(pids(loaded, "worker")) == 2, "it is fenced")
        flows(load)
    assert load.wrong == []


def test_redis_is_killed(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load:
        for _ in range(3):
            flows(load)
            os.kill(process(loaded, "redis"), signal.SIGKILL)
            flows(load)
    assert load.wrong == []


def test_redis_is_a_replica_for_a_while(loaded: Machine) -> None:
    """As in a failover of which nobody has told us yet: it takes nothing, and connections stay."""
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load, client_of(loaded) as client:
        for _ in range(3):
            flows(load)
            client.config_resetstat()
            client.replicaof("127.0.0.1", 1)
            until(lambda: refusals(client) > 10, "it refuses what comes")
            client.replicaof("NO", "ONE")
            flows(load)
    assert load.wrong == []


def refusals(client: redis.Redis) -> int:
    found: Any = client.info("errorstats")
    return int(found.get("errorstat_READONLY", {"count": 0})["count"])


def test_redis_forgets_everything(loaded: Machine) -> None:
    """FLUSHALL: turns stay exact; group messages may be lost or repeated, so nobody listens."""
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS, listeners=0) as load, client_of(loaded) as client:
        for _ in range(4):
            flows(load)
            client.flushall()
            flows(load)
    assert load.wrong == []


def test_connections_to_redis_are_cut(loaded: Machine) -> None:
    loaded.start("benchmarks.numbered:app", "--workers", "2")
    with Load(loaded.url, sockets=SOCKETS) as load, client_of(loaded) as client:
        for _ in range(20):
            flows(load, 60)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        flows(load)
    assert load.wrong == []


PIECES, PIECE = 1000, bytes(range(256)) * 128  # 31 MiB, which take five seconds


def slow_bodies(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """GET: a response in pieces; POST: says whether its body came as it was sent."""
    if environ["REQUEST_METHOD"] == "GET":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return pieces()
    read = environ["wsgi.input"].read
    came = b"".join(iter(lambda: read(1 << 16), b""))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"whole" if came == PIECE * PIECES else b"%d bytes" % len(came)]


async def slow_asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same as ASGI."""
    came = b""
    while scope["method"] == "POST" and (message := await receive())["type"] == "http.request":
        came += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in pieces() if scope["method"] == "GET" else ():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    answer = b"" if scope["method"] == "GET" else b"whole" if came == PIECE * PIECES else b"%d bytes" % len(came)
    await send({"type": "http.response.body", "body": answer})


def pieces() -> Iterator[bytes]:
    for _ in range(PIECES):
        time.sleep(0.005)
        yield PIECE


@pytest.mark.parametrize("kind", ["slow_bodies", "slow_asgi"])
def test_bodies_on_their_way_lose_nothing_when_redis_is_cut_off_and_killed(loaded: Machine, kind: str) -> None:
    loaded.start(f"tests.scenarios.test_faults:{kind}", "--workers", "2")
    answers: dict[str, bytes] = {}

    def carry(method: str, body: Iterable[bytes] | None) -> None:
        headers = {"Transfer-Encoding": "chunked"} if body else {}
        request = Request(loaded.url + "/", body, headers, method=method)
        with urlopen(request, timeout=100) as response:
            answers[method] = response.read()

    redis_pid = process(loaded, "redis")
    carrying = [threading.Thread(target=carry, args=each) for each in (("GET", None), ("POST", pieces()))]
    for each in carrying:
        each.start()
    with client_of(loaded) as client:
        until(lambda: any(map(client.xlen, client.scan_iter("*:re:*"))), "the response is on its way")
        for _ in range(5):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            for each in carrying:
                each.join(0.1)  # in which some of it gets through
    assert all(each.is_alive() for each in carrying), "it is over before Redis is killed"
    os.kill(redis_pid, signal.SIGKILL)
    for each in carrying:
        each.join(100)
    assert answers == {"GET": PIECE * PIECES, "POST": b"whole"}


def process(machine: Machine, role: str) -> int:
    processes = machine.status()["processes"]
    return int(next(each["pid"] for each in processes if each["role"] == role))


def test_a_killed_interface_takes_only_its_own_sockets_along(loaded: Machine) -> None:
    """Two interfaces: whose sockets end is the killed one's alone; what it left in Redis is cleaned."""
    loaded.start("benchmarks.numbered:app", "--workers", "1", "--interfaces", "2")
    with client_of(loaded) as client, Load(loaded.url, sockets=SOCKETS, listeners=0) as load:
        flows(load)
        streams = set(client.scan_iter("*:re:*"))
        assert len(streams) == 4, "of requests and of sockets"
        os.kill(next(iter(pids(loaded, "interface"))), signal.SIGKILL)
        until(lambda: len(streams & set(client.scan_iter("*:re:*"))) == 2, "its reply streams are gone")
        until(lambda: len(pids(loaded, "interface")) == 2, "it is replaced")
        flows(load)
    assert load.wrong
    assert all("was closed" in line or "request failed" in line for line in load.wrong), load.wrong
    assert len(load.wrong) <= SOCKETS
