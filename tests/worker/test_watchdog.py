"""The worker's other thread: its beat, and what it does beside handlers. Redis and the loops are a test's."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from asgictl.app.application import Application
from asgictl.config import WorkerConfig
from asgictl.errors import FENCED_STATUS, TIMEOUT_STATUS
from asgictl.layers.base import Entry
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import Beat
from asgictl.layers.redis.send_commands import send_command, weigh_command
from asgictl.layers.redis.started import Started
from asgictl.layers.redis.worker_side import COMMIT
from asgictl.wire.messages import VERSION, Done, Event, Job, Receive, Request, Response, decode_reply, encode
from asgictl.worker.loop import Loop
from asgictl.worker.watchdog import Watchdog
from tests.worker.conftest import scope


class Exited(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Watchdog]:
    made = Watchdog(WorkerConfig("test", f"unix://{tmp_path}/absent", "t", 1), "h.1.aa", [], threading.Event())
    yield made
    made._client.close()


@pytest.fixture
def reaped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What the process has given back; should it end, that raises Exited."""
    heard: list[tuple[str, bool]] = []

    def end(status: int) -> None:
        raise Exited(status)

    monkeypatch.setattr("asgictl.worker.watchdog.reap", lambda _client, _keys, dead, seen: heard.append((dead, seen)))
    monkeypatch.setattr(os, "_exit", end)
    return heard


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Beat) -> list[bytes]:
    """Have Redis give these answers; returns the epochs that beats tell it."""
    waiting, epochs = iter(answers), []

    def beat(_client: Any, _keys: Any, role: str, id: str, epoch: bytes, **_known: Any) -> Beat:
        assert (role, id) == ("worker", "h.1.aa")
        epochs.append(epoch)
        return next(waiting)

    monkeypatch.setattr("asgictl.worker.watchdog.beat", beat)
    return epochs


def test_a_beat_tells_the_epoch_that_the_one_before_was_told(
    control: Watchdog, reaped: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = answering(monkeypatch, Beat(b"e1", False, []), Beat(b"e2", False, []), Beat(b"e2", False, []))
    for _ in range(3):
        control.beat()
    assert epochs == [b"", b"e1", b"e2"]
    assert reaped == []


def test_a_fenced_worker_gives_back_what_it_holds_and_ends(
    control: Watchdog, reaped: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Beat(b"e1", True, []))
    with pytest.raises(Exited, match=str(FENCED_STATUS)):
        control.beat()
    assert reaped == [("worker/h.1.aa", True)]


def test_a_lost_redis_is_logged_and_nothing_more(
    control: Watchdog, reaped: list[tuple[str, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    control.beat()
    control.thread.start()
    control._stopping.set()
    control.finish()
    assert {message.partition(":")[0] for message in caplog.messages if "reads" not in message} == {
        "could not send a heartbeat",
        "could not deregister from Redis",
    }
    assert reaped == [("worker/h.1.aa", True)], "the end of its lease, and of all that it may still hold"


def test_a_deregistration_that_redis_does_not_hear_is_logged(
    control: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    control.thread.start()
    control.finish()
    assert caplog.messages[-1].startswith("could not deregister from Redis")


def test_a_worker_that_nobody_watches_any_more_ends(control: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Exception):
        pass

    def fail() -> None:
        raise Fails

    monkeypatch.setattr(control, "_watch", fail)
    with pytest.raises(Fails):
        control._serve()
    assert control._stopping.is_set()
    assert control.thread.daemon, "nor does this thread keep a process whose main thread has failed"


class Redis:
    """Keeps commands; may be away."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.is_away = False

    def execute_command(self, *command: Any) -> None:
        if self.is_away:
            raise redis.ConnectionError("away")
        self.commands.append(command)

    def client_unblock(self, id: int) -> None:
        self.commands.append(("CLIENT UNBLOCK", id))

    def close(self) -> None:
        """Nothing is open."""


class Layer:
    client_id = 7

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


def request(connection: str = "i/1") -> Request:
    return Request(connection, 1, scope(), b"")


def entry(number: int, event: Event | None = None) -> Entry:
    return Entry(b"asgictl:{test}:ch:http.request.slow", b"%d-0" % number, event or request())


class Watched:
    """A control thread that a test is, two loops of which the first runs an event, and their Redis."""

    def __init__(self, event: Event | None = None, **config: Any) -> None:
        self.redis = Redis()
        self.layers = [Layer(), Layer()]
        unused: Any = None
        layers: list[Any] = [*self.layers]
        self.stopping = threading.Event()
        self.loops = [Loop(Application(), layer, self.stopping, unused, unused, Started(None, 0)) for layer in layers]
        settings = {"timeout_seconds": 5.0, **config}
        self.control = Watchdog(
            WorkerConfig("test", "unix:///absent", "t", **settings), "h.1.aa", self.loops, self.stopping
        )
        client: Any = self.redis
        self.control._client = client
        self.loops[0].running = entry(0, event)
        self.loops[0].prefetched.extend([entry(1), entry(2)])
        self.loops[1].prefetched.append(entry(3))

    def watch(self, *, running_seconds: float, unheard_seconds: float | None = None) -> None:
        """Look at a handler that has been running, and has not waited for its client, for so long."""
        now = time.perf_counter()
        self.loops[0].began = now - running_seconds
        self.loops[0].since = now - (running_seconds if unheard_seconds is None else unheard_seconds)
        self.control._watch()

    @property
    def released(self) -> list[bytes]:
        commands = [command for command in self.redis.commands if "-- Release" in str(command[1])]
        return sorted(argument for command in commands for argument in command[command[2] + 5 :])


def test_senders_know_how_full_background_channels_are(client: Any, url: str) -> None:
    application = Application(background={"full": print, "empty": print})
    unused: Any = None
    stopping = threading.Event()
    layer: Any = SimpleNamespace(end_silence=lambda: None)
    loop = Loop(application, layer, stopping, unused, unused, Started(None, 0))
    control = Watchdog(WorkerConfig("measured", url, "t"), "h.1.aa", [loop], stopping)
    for number in range(3):
        client.xadd("asgictl:{measured}:ch:background.full", {"1": number})
        client.zadd("asgictl:{measured}:ch:background.full:delayed", {f"{number}": number})
    control.beat()
    control._client.close()
    client.flushall()
    assert application.depths == {"full": 6, "empty": 0}


def test_senders_within_events_and_outside_of_any_know_the_same_bytes(client: Any, url: str) -> None:
    application = Application(background={"full": print})
    unused: Any = None
    stopping = threading.Event()
    layer: Any = SimpleNamespace(end_silence=lambda: None)
    loop = Loop(application, layer, stopping, unused, unused, Started(None, 0))
    control = Watchdog(WorkerConfig("measured", url, "t"), "h.1.aa", [loop], stopping)
    keys, job = Keys("measured"), Job("job.a", 1, "full", b"x" * 100_000)
    for number in range(1, 4):
        assert client.execute_command(*send_command(keys, job, 10, 1 << 20)) == 1
        weighed_at = None
        while weighed_at != client.time()[0]:  # each second weighs anew, without what it has added
            weighed_at = client.time()[0]
            control.beat()
            weight = client.execute_command(*weigh_command(keys, job.channel))
        assert application.depths["full"] == number
        assert application.depths.bytes["full"] == weight
        used = client.memory_usage(keys.channel(job.channel), samples=0)
        assert abs(application.depths.bytes["full"] - used) < 25_000 * number
    control._client.close()
    client.flushall()


def test_what_waits_behind_a_slow_handler_is_given_back_and_what_was_done_before_it_leaves() -> None:
    watched = Watched()
    watched.watch(running_seconds=1)
    assert watched.released == [b"1-0", b"2-0"]
    assert [len(loop.prefetched) for loop in watched.loops] == [0, 1], "the other loop runs nothing that is slow"
    assert [layer.flushed > 0 for layer in watched.layers] == [True, False]
    watched.watch(running_seconds=2)
    assert len(watched.redis.commands) == 1, "once"


def test_a_request_that_talks_with_its_client_keeps_nobody_waiting_either() -> None:
    watched = Watched()
    watched.watch(running_seconds=1, unheard_seconds=0)
    assert watched.released == [b"1-0", b"2-0"]


def test_it_sleeps_while_all_loops_wait_and_wakes_when_one_goes_on() -> None:
    watched = Watched()
    for loop in watched.loops:
        loop.is_reading = True
    began = time.monotonic()
    threading.Timer(0.2, watched.loops[1].awake.set).start()
    watched.control._rest(60)
    assert 0.1 < time.monotonic() - began < 30
    began = time.monotonic()
    watched.control._rest(60)  # what has begun may take long: the next look comes soon
    assert time.monotonic() - began < 30


def test_it_looks_again_soon_while_a_loop_is_at_work_or_is_to_stop() -> None:
    watched = Watched()
    began = time.monotonic()
    watched.loops[0].is_reading = True
    watched.control._rest(60)
    watched.loops[1].is_reading = True
    watched.control.stop()
    watched.control._rest(60)
    watched.control._rest(60)
    assert time.monotonic() - began < 30


def test_what_waits_behind_a_fast_handler_stays() -> None:
    watched = Watched()
    watched.watch(running_seconds=0)
    assert watched.redis.commands == []
    assert len(watched.loops[0].prefetched) == 2


def test_what_cannot_be_given_back_is_left_to_the_loop() -> None:
    watched = Watched()
    watched.redis.is_away = True
    watched.watch(running_seconds=1)
    assert sorted(each.id for each in watched.loops[0].unreleased) == [b"1-0", b"2-0"]


def test_a_handler_that_takes_too_long_is_answered_for_kept_as_a_dead_letter_and_ends_the_worker(
    reaped: object, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched()
    watched.loops[0].thread = threading.get_ident()
    with pytest.raises(Exited, match=str(TIMEOUT_STATUS)):
        watched.watch(running_seconds=5.1)
    assert watched.released == [b"1-0", b"2-0", b"3-0"], "of every thread"
    message, commit = (command for command in watched.redis.commands if "-- Release" not in str(command[1]))
    assert (message[0], *message[2:4]) == ("EVAL", 1, "asgictl:{test}:dead")
    assert message[-5:] == (encode(request())[1], "channel", "http.request.slow", "reason", message[-1])
    assert "5 s" in message[-1]
    assert commit[:2] == ("EVAL", COMMIT)
    assert b"0-0" in commit
    reply = decode_reply(b"%d" % VERSION, commit[-1])
    assert isinstance(reply, Response)
    assert (reply.connection, reply.status) == ("i/1", 504)
    assert "GET /a b (event 0-0): its handler took longer than 5 s" in caplog.text
    assert "test_watchdog.py" in caplog.text, "where it hangs"


def test_a_turn_that_takes_too_long_closes_its_socket(reaped: object) -> None:
    watched = Watched(Receive("i/1", 3, 2, b"", b"", ["x"], 0))
    with pytest.raises(Exited):
        watched.watch(running_seconds=5.1)
    (commit,) = (command for command in watched.redis.commands if command[1] == COMMIT)
    reply = decode_reply(b"%d" % VERSION, commit[-1])
    assert isinstance(reply, Done)
    assert reply.close
    assert (reply.number, reply.attempt, reply.close.code) == (3, 2, 1011)


def test_a_worker_ends_at_a_timeout_even_while_redis_is_away(reaped: object) -> None:
    watched = Watched()
    watched.redis.is_away = True
    with pytest.raises(Exited, match=str(TIMEOUT_STATUS)):
        watched.watch(running_seconds=5.1)


def test_the_culprit_alone_is_answered_for_when_the_loop_has_gone_on_meanwhile(reaped: object) -> None:
    watched = Watched()
    watched.loops[0].running = entry(9, request("i/9"))
    with pytest.raises(Exited):
        watched.control._end(watched.loops[0], entry(0))
    (commit,) = (command for command in watched.redis.commands if command[1] == COMMIT)
    assert decode_reply(b"%d" % VERSION, commit[-1]).connection == "i/1"
    assert b"9-0" not in commit


@pytest.mark.parametrize(
    ("timeout", "unheard"), [(0, 100), (5, 4.5), (5, 0)], ids=["no timeout", "in time", "waits for its client"]
)
def test_other_handlers_go_on(timeout: float, unheard: float, reaped: object) -> None:
    watched = Watched(timeout_seconds=timeout)
    watched.watch(running_seconds=100, unheard_seconds=unheard)
    assert not watched.stopping.is_set()


@pytest.mark.parametrize(
    ("config", "events", "ends"),
    [
        ({}, 10**9, False),
        ({"max_events": 100}, 89, False),
        ({"max_events": 100}, 110, True),
        ({"max_memory_bytes": 1 << 20}, 0, True),
        ({"max_memory_bytes": 1 << 50}, 0, False),
    ],
)
def test_a_worker_that_has_served_or_grown_enough_ends_to_be_replaced(
    config: dict[str, Any], events: int, ends: bool
) -> None:
    watched = Watched(**config)
    watched.loops[0].events = events // 2
    watched.loops[1].events = events - events // 2
    watched.control._recycle()
    assert watched.stopping.is_set() is ends


def test_reads_that_wait_are_ended_when_the_worker_stops() -> None:
    watched = Watched()
    watched.control._unblock()
    assert watched.redis.commands == [("CLIENT UNBLOCK", 7)] * 2


@pytest.mark.parametrize("junk", [("SET", b"abc"), ("RPUSH", b"abc")])
def test_a_manifest_or_channels_that_are_none_are_ours_again(client: Any, url: str, junk: tuple[str, bytes]) -> None:
    """A9: what no lease bounds is no worker's."""
    keys, rejected = Keys("again"), list[str]()
    config = WorkerConfig("again", url, "t")
    control = Watchdog(config, "h.1.aa", [], threading.Event(), b"m", channels=["http.request"], reject=rejected.append)
    for key in (keys.manifest, keys.channels):
        client.delete(key)
        client.execute_command(junk[0], key, junk[1])
    assert control.beat()
    assert client.get(keys.manifest) == b"m" or client.pttl(keys.manifest) > 0
    assert client.smembers(keys.channels) == {keys.channel("http.request").encode()}
    assert len(rejected) == {"SET": 1, "RPUSH": 2}[junk[0]]
    control._client.close()
