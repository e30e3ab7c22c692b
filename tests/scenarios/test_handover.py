"""Interfaces are replaced under load, and no client notices: sockets move to a process that stays."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from websockets.sync.client import connect

from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.send_commands import Broadcasts
from asgictl.wire.messages import SERVICE_RESTART, Broadcast
from tests.conftest import Machine, until
from tests.faults.conftest import frames, handshake, is_closed
from tests.scenarios.moving import HELD, LARGE, Clients
from tests.scenarios.test_deploys import processes

ROOT = Path(__file__).parents[2]
HALTED = Path(__file__).parent / "halted"
SECONDS = 60.0
MOVED_SECONDS = 45.0  # in which sockets without anything special have moved, and their process has ended
SOCKETS = 12
FRAME, FRAGMENTS = frames("raw 1"), b"\x01\x83\0\0\0\0raw\x80\x82\0\0\0\0 1"
SPEAKER = """
import sys, time
from asgictl.channels1 import Channel
for number in range(1, int(sys.argv[2]) + 1):
    Channel(sys.argv[1]).send({"text": f"said {number}"})
    time.sleep(0.01)
"""


def start(machine: Machine, *arguments: str, target: str = "app") -> Machine:
    machine.directory = ROOT
    machine.start(f"tests.scenarios.moving:{target}", "--workers", "2", *arguments)
    return machine


@pytest.fixture
def site(machine: Machine) -> Machine:
    return start(machine)


def interfaces(machine: Machine) -> set[int]:
    return set(processes(machine, "interface").values())


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def change(machine: Machine, *command: str) -> set[int]:
    """Run a command that replaces interfaces; return those that are to end."""
    before = interfaces(machine)
    done = machine.run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return before - interfaces(machine)


def gone(pids: set[int], seconds: float = MOVED_SECONDS) -> None:
    until(lambda: not any(map(is_alive, pids)), "those that are replaced have ended", seconds)


def replaced(machine: Machine, *command: str) -> None:
    old = change(machine, *command)
    assert old, "nothing was replaced"
    gone(old)


def flow(clients: Clients, seconds: float = SECONDS) -> None:
    since = time.monotonic()
    until(lambda: clients.flowed(since), "each client hears something", seconds)


@contextmanager
def raw(machine: Machine, receive_bytes: int = 0) -> Iterator[socket.socket]:
    """Open a socket of bytes, beside the group."""
    client = socket.socket()
    with client:
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", machine.port))
        client.sendall(handshake(b"/room?alone"))
        assert hears(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        yield client


def hears(client: socket.socket, text: bytes) -> bytes:
    """Read until a text has come; fails where the server closes first."""
    received = b""
    while text not in received:
        part = client.recv(1 << 16)
        assert part, f"closed after {received[-100:]!r}"
        received += part
    return received


def test_a_reload_moves_each_socket_and_nobody_notices(site: Machine) -> None:
    with Clients(site.port, SOCKETS, visitors=2, asks=True) as clients:
        for command in (("reload", "--interfaces"), ("reload", "--interfaces"), ("restart", "interface")):
            replaced(site, *command)
            flow(clients)
    assert clients.wrong == []
    assert clients.codes == {}
    assert clients.visits > SOCKETS
    assert clients.requests > SOCKETS


def test_a_second_reload_before_the_first_has_moved_all(machine: Machine, tmp_path: Path) -> None:
    machine.environment |= {HELD: str(tmp_path / "go")}
    site = start(machine)
    with raw(site) as held, Clients(site.port, SOCKETS) as clients:
        held.sendall(frames("held 1", "slow 2 0"))
        first = change(site, "reload", "--interfaces")
        second = change(site, "reload", "--interfaces")
        assert any(map(is_alive, first)), "it holds a socket whose turn runs"
        flow(clients)
        (tmp_path / "go").touch()
        hears(held, b"2:2:")
        gone(first | second)
        held.sendall(frames("slow 3"))
        hears(held, b"3:3:")
        flow(clients)
    assert clients.wrong == []
    assert clients.codes == {}


def test_scaling_down_moves_sockets_to_those_that_stay(machine: Machine) -> None:
    site = start(machine, "--interfaces", "3")
    with Clients(site.port, SOCKETS, visitors=1, asks=True) as clients:
        replaced(site, "scale", "interface=2")
        replaced(site, "scale", "interface=1")
        flow(clients)
    assert clients.wrong == []
    assert clients.codes == {}


@pytest.mark.parametrize(
    ("whole", "cut", "moves_at_once"),
    [(FRAME, 1, True), (FRAME, 9, True), (FRAGMENTS, 4, True), (FRAGMENTS, 9, False), (FRAGMENTS, 12, False)],
)
def test_a_socket_moves_within_a_frame_and_behind_the_last_fragment(
    site: Machine, whole: bytes, cut: int, moves_at_once: bool
) -> None:
    with raw(site) as client, raw(site) as quick:
        client.sendall(whole[:cut])
        quick.sendall(frames("raw 1"))
        hears(quick, b"1:1:")
        old = change(site, "reload", "--interfaces")
        if moves_at_once:
            gone(old)
        client.sendall(whole[cut:])
        hears(client, b"1:1:")
        gone(old)
        for each in (client, quick):
            each.sendall(frames("raw 2"))
            hears(each, b"2:2:")


def test_what_a_client_has_not_read_yet_is_not_lost(site: Machine) -> None:
    with raw(site, receive_bytes=4096) as client:
        client.sendall(frames(*(f"large {number}" for number in range(1, 13))))
        until(lambda: "asgictl" in site.run("status").stdout, "it is being written")
        old = change(site, "reload", "--interfaces")
        received = hears(client, b"12:12:")
        places = [received.index(b"%d:%d:" % (number, number)) for number in range(1, 13)]
        assert places == sorted(places)
        while len(received) < places[-1] + LARGE:
            received += client.recv(1 << 16)
        gone(old)
        client.sendall(frames("raw 13"))
        hears(client, b"13:13:")


def test_a_handler_that_runs_for_long_is_waited_for(site: Machine) -> None:
    with raw(site) as client:
        client.sendall(frames("slow 1 3", "slow 2 0"))
        old = change(site, "reload", "--interfaces")
        assert b"1:1:" in hears(client, b"2:2:")
        gone(old)
        client.sendall(frames("slow 3"))
        hears(client, b"3:3:")


def test_a_handler_that_runs_past_the_deadline_costs_its_own_socket_alone(machine: Machine, tmp_path: Path) -> None:
    machine.environment |= {
        "HALTING": str(tmp_path), "HANDOVER_SECONDS": "6", HELD: str(tmp_path / "go"), "PYTHONPATH": f"{HALTED}:{ROOT}"
    }  # fmt: skip
    site = start(machine)
    with raw(site) as slow, Clients(site.port, SOCKETS) as clients:
        slow.sendall(frames("held 1"))
        old = change(site, "reload", "--interfaces")
        received = hears(slow, SERVICE_RESTART.to_bytes(2, "big"))
        assert b"1:1:" not in received, "it was not closed at the deadline"
        (tmp_path / "go").touch()
        slow.sendall(b"\x88\x82\0\0\0\0" + SERVICE_RESTART.to_bytes(2, "big"))
        assert is_closed(slow)
        gone(old)
        flow(clients)
    assert clients.wrong == []
    assert clients.codes == {}


def test_a_group_that_speaks_a_thousand_times_a_second(site: Machine) -> None:
    said, stopping = 0, threading.Event()

    def speak() -> None:
        nonlocal said
        outside, keys = Broadcasts("outside"), Keys("default")
        with redis.Redis(unix_socket_path=f"{site.runtime}/asgictl/default/redis.sock") as client:
            while not stopping.wait(0.01):
                pipeline = client.pipeline(transaction=False)
                for _ in range(10):
                    said += 1
                    pipeline.execute_command(*outside.command(keys, Broadcast("room", f"said outside {said}")))
                pipeline.execute()

    speaking = threading.Thread(target=speak)
    with Clients(site.port, 8) as clients:
        speaking.start()
        try:
            for _ in range(2):
                replaced(site, "reload", "--interfaces")
                flow(clients)
        finally:
            stopping.set()
            speaking.join()
        until(lambda: all(each.heard.get("outside") == said for each in clients.each), "all is heard")
    assert clients.wrong == []
    assert clients.codes == {}


def test_redis_forgets_everything_while_sockets_move(site: Machine) -> None:
    """FLUSHALL: turns stay exact; group messages may be lost, so nobody is in a group."""
    with (
        Clients(site.port, SOCKETS, alone=True) as clients,
        redis.Redis(unix_socket_path=f"{site.runtime}/asgictl/default/redis.sock") as client,
    ):
        for _ in range(2):
            before = interfaces(site)
            with site.popen("reload", "--interfaces") as command:
                until(lambda: len(interfaces(site)) > 1 or command.poll() is not None, "the new one starts")
                for _ in range(3):
                    client.flushall()
                    flow(clients)
                assert "reloaded" in command.communicate(timeout=SECONDS)[0]
            gone(before)
    assert clients.wrong == []
    assert clients.codes == {}


def test_a_reply_channel_that_somebody_remembers_stays_valid(machine: Machine) -> None:
    site = start(machine, target="remembered")
    with connect(site.ws + "/", compression=None) as ws:
        name, times = ws.recv(SECONDS), 400
        environment = site.environment | {"ASGICTL_NAME": "default"}
        command = [site.python, "-c", SPEAKER, str(name), str(times)]
        with subprocess.Popen(command, env=environment, cwd=ROOT) as speaking:
            assert ws.recv(SECONDS) == "said 1"
            replaced(site, "reload", "--interfaces")
            for number in range(2, times + 1):
                assert ws.recv(SECONDS) == f"said {number}"
            assert speaking.wait(SECONDS) == 0
        ws.send("still here")
        assert ws.recv(SECONDS) == "still here"
