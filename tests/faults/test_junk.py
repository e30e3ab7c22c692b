"""A9: what is none of ours in Redis spoils itself alone: no process dies of it, none spins, others notice nothing."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from asgictl.wire.messages import Connect, Job, Receive, encode
from tests.conftest import Machine, new_machine, until
from tests.faults.conftest import HANG_SECONDS, exchange, kill, request, status_of
from tests.faults.junk import LAST_ID, PREFIX, Junk
from tests.faults.loaded import ROOT, loaded

SECONDS = 5.0
SOAK_SECONDS = 60.0
PAUSE_SECONDS = 0.005  # between two writes
MOST_SHARE = 0.6  # of a core, that a process may use
AGAIN_SECONDS = 60.0
DEADLINE_SECONDS = 75.0  # in which a request ends whose body's parts were forgotten
MOST_MOVED = 2000
BEATS_SECONDS = 5.0  # some beats, some looks of the controller, and what a worker takes to end
GRACE_SECONDS = 60.0  # more than is granted to all after a gap
DEAD = "worker/none.1.x"
LAST = 5  # writes that a failure shows
SEED = "ASGICTL_SEED"  # of the longer runs
LARGE = b"Content-Length: 100000"  # more than travels with its event
REDIS = "asgictl/default/redis.sock"


def client_of(machine: Machine) -> "redis.Redis":
    return redis.Redis.from_url(f"unix://{machine.runtime}/{REDIS}")


def processes(machine: Machine) -> dict[str, int]:
    found = machine.status()["processes"]
    return {each["process"]: each["pid"] for each in found}


def used(pids: dict[str, int]) -> dict[str, float]:
    """Return the CPU seconds of each process."""
    found = {}
    for name, pid in pids.items():
        times = psutil.Process(pid).cpu_times()
        found[name] = times.user + times.system
    return found


@contextmanager
def steady(machine: Machine) -> Iterator[None]:
    """Judge that every process lives, and that none has spun."""
    before, began = processes(machine), time.monotonic()
    seconds = used(before)
    yield
    assert processes(machine) == before
    took = time.monotonic() - began
    shares = {name: (now - seconds[name]) / took for name, now in used(before).items()}
    assert {name: share for name, share in shares.items() if share > MOST_SHARE} == {}


def write(junk: Junk, act: Callable[[], None], seconds: float) -> None:
    """Write junk for so long."""
    print(f"{SEED}={junk.seed}")
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        act()
        time.sleep(PAUSE_SECONDS)
    print(f"{len(junk.done)} writes, the last: {junk.done[-LAST:]}")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


JOB = encode(Job("none:1", 1, "jobs", b""))


Things = dict[str, tuple[str, str, list[object]]]
ONE: Things = {  # what stops somebody for good, or did; a key by its pattern
    "a position that is none": ("XADD", "re:*", ["*", "1", b"\x90", "position", "abc"]),
    "a count of deaths that is none": ("XADD", "ch:background.jobs", ["*", *JOB, "retries", "abc"]),
    "a job that nobody has": ("XADD", "ch:background.jobs", ["*", *encode(Job("none:1", 1, "other", b""))]),
    "a channel whose name is no text": ("SADD", "channels", [b"\xc1"]),
    "a process whose name is no text": ("ZADD", "alive", [0, b"\xc1"]),
    "a newest broadcast that is none": ("SET", "bc:trimmed", ["abc"]),
    "a last beat that is none": ("SET", "clock", ["abc"]),
    "an end of grace that is none": ("SET", "grace", ["abc"]),
}


TURN = ("none/1", 1, 1)
ONE_OF_ASGI: Things = {  # the same where an ASGI application is served
    "a job": ("XADD", "ch:websocket.connect", ["*", *JOB]),
    "a frame of a consumer's": ("XADD", "ch:websocket.connect", ["*", *encode(Receive(*TURN, b"", b"", ["x"], 1))]),
    "a handshake whose scope is none": ("XADD", "ch:websocket.connect", ["*", *encode(Connect(*TURN, b"\xc1", b""))]),
}


@pytest.fixture(scope="module")
def well() -> Iterator[Callable[[str], Machine]]:
    """Return a function that returns an instance of a target that is well: another once a row has broken it."""
    with ExitStack() as stack:
        made: dict[str, tuple[Machine, dict[str, int]]] = {}

        def one(target: str) -> Machine:
            if target in made:
                machine, pids = made[target]
                if processes(machine) == pids and goes_on(machine):
                    return machine
                kill(machine)
            machine = stack.enter_context(new_machine())
            stack.callback(kill, machine)
            machine.directory = ROOT
            machine.start(f"benchmarks.links:{target}", "--workers", "2")
            until(lambda: goes_on(machine), "it serves")
            made[target] = machine, processes(machine)
            return machine

        yield one


def goes_on(machine: Machine, seconds: float = HANG_SECONDS) -> bool:
    """Whether the instance serves a request and a frame, within so long each."""
    try:
        with connect(machine.ws + "/numbers", open_timeout=seconds, close_timeout=0.2) as socket:
            socket.send("s 1")
            return socket.recv(seconds) == "1:1" and status_of(exchange(machine, request(b"/"), seconds)) == 200
    except (OSError, WebSocketException):  # a timeout is an OSError
        return False


@contextmanager
def stays_well(machine: Machine, client: "redis.Redis") -> Iterator[None]:
    """Judge that processes live and beat, that requests and frames are answered, and that the dead are seen to."""
    before, held = processes(machine), leases(client)
    yield
    began = time.monotonic()
    while time.monotonic() < began + BEATS_SECONDS:
        assert goes_on(machine)
    assert processes(machine) == before
    renewed = leases(client)
    assert [name for name, until_then in held.items() if renewed.get(name, 0) <= until_then] == []
    client.zadd(PREFIX + "alive", {DEAD: 1})
    until(lambda: client.zscore(PREFIX + "alive", DEAD) is None, "the dead are seen to", GRACE_SECONDS)


def leases(client: "redis.Redis") -> dict[bytes, float]:
    """Return until when leases last, by Redis milliseconds, of those that have not lapsed."""
    time_of_redis: Any = client.time()
    now = time_of_redis[0] * 1000
    found: Any = client.zrange(PREFIX + "alive", 0, -1, withscores=True)
    return {name: score for name, score in found if now < score < now + 60_000}


@pytest.mark.parametrize(("target", "things"), [("app", ONE), ("streams", ONE_OF_ASGI)])
def test_things_of_no_sense_are_passed_over(well: Callable[[str], Machine], target: str, things: Things) -> None:
    """A9: all of them together."""
    put(well(target), *things.values())


@pytest.mark.soak
@pytest.mark.parametrize("name", ONE)
def test_one_thing_of_no_sense_is_passed_over(well: Callable[[str], Machine], name: str) -> None:
    """A9."""
    put(well("app"), ONE[name])


@pytest.mark.soak
@pytest.mark.parametrize("name", ONE_OF_ASGI)
def test_one_thing_of_no_sense_is_passed_over_beside_asgi(well: Callable[[str], Machine], name: str) -> None:
    """A9."""
    put(well("streams"), ONE_OF_ASGI[name])


def put(machine: Machine, *things: tuple[str, str, list[object]]) -> None:
    """Put things into an instance, and judge that it stays well; values that stand alone are taken away again."""
    with closing(client_of(machine)) as client:
        try:
            with stays_well(machine, client):
                for command, key, rest in things:
                    found = next(client.scan_iter(PREFIX + key), (PREFIX + key).encode())
                    client.execute_command(command, found, *rest)
        finally:
            client.delete(*(PREFIX + key for command, key, _ in things if command == "SET"), PREFIX + "none")


def test_a_dead_letter_that_is_none_is_listed_all_the_same(well: Callable[[str], Machine]) -> None:
    """A9."""
    machine = well("app")
    with closing(client_of(machine)) as client:
        client.execute_command("XADD", PREFIX + "dead", "*", "1", b"\x90")
        assert machine.run("dead-letters", "list").returncode == 0
        client.delete(PREFIX + "dead")


def test_delayed_jobs_that_are_none_do_not_hold_up_others(well: Callable[[str], Machine]) -> None:
    """A9: as many as one beat moves, all due before the one that is a job."""
    machine = well("app")
    with closing(client_of(machine)) as client:
        key = PREFIX + "ch:background.jobs:delayed"
        client.zadd(key, {b"%d" % number: 0 for number in range(MOST_MOVED)} | {b"%b %b" % JOB: 1})
        until(lambda: client.zscore(key, b"%b %b" % JOB) is None, "it is moved", AGAIN_SECONDS)
        client.delete(key)


def test_a_dead_interface_whose_last_wills_are_none_is_reaped(well: Callable[[str], Machine]) -> None:
    """A9."""
    machine = well("app")
    with closing(client_of(machine)) as client:
        client.hset(PREFIX + "conns:none.1", "none.1/1", "nowhere")
        client.zadd(PREFIX + "alive", {"interface/none.1": 1})
        until(lambda: client.zscore(PREFIX + "alive", "interface/none.1") is None, "it is reaped", AGAIN_SECONDS)


def test_a_letter_that_is_none_costs_no_upload(well: Callable[[str], Machine]) -> None:
    """A9: in the inbox of a thread whose request reads a body."""
    machine = well("app")
    with closing(client_of(machine)) as client:
        for inbox in client.scan_iter(PREFIX + "in:*"):
            client.xadd(inbox, {"1": b"\x90"})
    answers = {
        status_of(exchange(machine, request(b"/", LARGE, method=b"POST", body=bytes(100_000)))) for _ in range(8)
    }
    assert answers == {200}


HELD = {  # events that a worker has in flight when it dies
    "whose connection is a list": b"\x97\xa7receive\x90\x01\x01\xc4\x00\xc4\x00",
    "cut off behind its number": b"\x97\xa7receive\xa6none/1\x01",
    "no message": b"\xc1",
}


@pytest.mark.soak
@pytest.mark.parametrize("event", [pytest.param(each, id=name) for name, each in HELD.items()])
def test_what_a_dead_worker_held_goes_on_beside_an_event_of_no_sense(machine: Machine, event: bytes) -> None:
    """A9."""
    machine.directory = ROOT
    machine.start("benchmarks.links:app", "--workers", "1")
    pid, stream = processes(machine)["worker-00"], PREFIX + "ch:websocket.receive"
    with closing(client_of(machine)) as client, connect(machine.ws + "/numbers", close_timeout=0.2) as socket:
        os.kill(pid, signal.SIGSTOP)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # what reads is the test alone
        socket.send("s 1")
        until(lambda: client.xlen(stream), "the frame waits")
        client.xadd(stream, {"1": event})
        consumers: Any = client.xinfo_consumers(stream, "workers")
        client.xreadgroup("workers", consumers[0]["name"], {stream: ">"})
        os.kill(pid, signal.SIGKILL)
        try:
            assert socket.recv(AGAIN_SECONDS) == "1:1"
            until(lambda: client.xlen(stream) == 0, "nothing stays behind", AGAIN_SECONDS)
        except BaseException:
            kill(machine)
            raise


@pytest.mark.soak
def test_a_killed_interface_is_reaped_beside_a_channel_that_is_none(machine: Machine) -> None:
    """A9: and with it, its sockets' disconnects run."""
    machine.directory = ROOT
    machine.start("benchmarks.links:app", "--workers", "1")
    with closing(client_of(machine)) as client, connect(machine.ws + "/leaving", close_timeout=0.2) as socket:
        socket.send("x")
        assert socket.recv(AGAIN_SECONDS) == "x"
        client.sadd(PREFIX + "channels", PREFIX + "alive")
        (wills,) = client.scan_iter(PREFIX + "conns:*")
        os.kill(processes(machine)["interface-00"], signal.SIGKILL)
        until(lambda: not client.exists(wills), "it is reaped", AGAIN_SECONDS)


def test_a_worker_reads_an_inbox_that_begins_anew(machine: Machine) -> None:
    """A9: its last entry had the greatest of ids, or those of a clock that was ahead; then Redis forgot everything."""
    machine.directory = ROOT
    machine.start("benchmarks.links:streams", "--workers", "1")
    with closing(client_of(machine)) as client:
        until(lambda: goes_on(machine), "it serves")
        (inbox,) = client.scan_iter(PREFIX + "in:*.asgi")
        client.xadd(inbox, {"1": b"\x90"}, LAST_ID)
        until(lambda: "skipped entry" in machine.log("worker-00"), "it is read")
        client.flushall()
        try:
            until(lambda: goes_on(machine, SECONDS), "it serves again", AGAIN_SECONDS)
        except AssertionError:
            kill(machine)
            raise


KINDS = [("split", "app"), ("split", "streams"), ("inprocess", "app")]
RUNS = [  # seconds and seed
    pytest.param(SECONDS, 1, id="5s"),
    pytest.param(
        SOAK_SECONDS, int(os.environ.get(SEED, "0")) or random.getrandbits(32), id="60s", marks=pytest.mark.soak
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "target"), KINDS)
@pytest.mark.parametrize(("seconds", "seed"), RUNS)
def test_entries_of_no_sense_spoil_themselves_alone(
    machine: Machine, notes: Path, mode: str, target: str, seconds: float, seed: int
) -> None:
    """A9: sockets that count notice nothing, requests are answered."""
    options = ("--mode", mode, "--workers", "2")
    with loaded(machine, notes, target, *options) as site, closing(client_of(machine)) as client:
        junk = Junk(client, seed)
        with steady(machine):
            write(junk, junk.entry, seconds)
            site.flows(AGAIN_SECONDS, "it flows still")
    assert site.wrong == []
    assert site.requests.statuses == {200}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "target"), KINDS)
@pytest.mark.parametrize(("seconds", "seed"), RUNS)
def test_keys_of_no_sense_end_no_process(
    machine: Machine, notes: Path, mode: str, target: str, seconds: float, seed: int
) -> None:
    """A9: whatever stands there; once Redis has forgotten it, the instance serves as before."""
    options = ("--mode", mode, "--workers", "2")
    with loaded(machine, notes, target, *options, again=True) as site, closing(client_of(machine)) as client:
        junk = Junk(client, seed)
        with steady(machine):
            write(junk, junk.key, seconds)
            client.flushall()
            site.flows(DEADLINE_SECONDS, "it flows again")
