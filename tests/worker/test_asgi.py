"""All ASGI connections of a worker, on the test's own event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.app.application import Application
from asgictl.errors import TargetError, WireError
from asgictl.layers.base import Entry
from asgictl.wire.messages import (
    Closed,
    Connect,
    Disconnect,
    Frames,
    Incoming,
    InterfaceDied,
    Receive,
    Request,
    Response,
    encode_scope,
)
from asgictl.worker import asgi
from asgictl.worker.asgi import ASGIRuns, scope_of
from tests.worker.conftest import Events, scenario, scope, settled


class Worker:
    """What runs in it, and what was told to it."""

    def __init__(self, application: Application) -> None:
        self.events = Events()
        events: Any = self.events
        self.runs = ASGIRuns(application, events)

    def begin(self, *entries: Entry) -> list[bool]:
        return [self.runs.begin(entry) for entry in entries]

    async def drains(self, seconds: float = 30, rate: float = 1000) -> None:
        await asyncio.sleep(0)  # what began before is first in the loop's queue
        await self.runs._drain(seconds, rate)


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def http(number: int = 1, path: str = "/") -> Entry:
    return Entry(b"http", b"%d-0" % number, Request(f"i/{number:x}", 1, scope(path=path), b""))


def websocket(number: int = 1, interface: str = "i") -> Entry:
    event = Connect(f"{interface}/{number:x}", 1, 1, encode_scope(scope(path="/ws")), b"")
    return Entry(b"ws", b"%d-0" % number, event)


class Waiting:
    """An application that answers once `go_on` is set, and an echo; what it hears of its sockets' ends."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.runs = 0
        self.ends: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        if scope["type"] == "http":
            await self.go_on.wait()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.ends.append(message["code"])


def on(test: Callable[[Waiting, Worker], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @scenario
    async def run() -> None:
        waiting = Waiting()
        await test(waiting, Worker(Application(http=waiting, websocket=waiting)))

    run.__name__ = test.__name__
    return run


def test_events_are_served_by_what_their_paths_mount() -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        """Serves nothing here."""

    mixed = Worker(Application(http={"/": wsgi, "/async": mounted})).runs
    assert [mixed.serves(http(path=path)) for path in ("/", "/async", "/async/x", "/asynchronous")] == [
        False,
        True,
        True,
        False,
    ]
    assert not mixed.serves(websocket())
    assert Worker(Application(http=wsgi, websocket=mounted)).runs.serves(websocket())


@on
async def test_what_no_asgi_application_has_is_an_error(waiting: Waiting, worker: Worker) -> None:
    for event in (
        Connect("i/1", 1, 1, b"\xc1", b""),
        Receive("i/1", 1, 1, b"", b"", ["x"], 1),
        Disconnect("i/1", 1, 1, b"", b"", 1000, ""),
    ):
        with pytest.raises(WireError):
            worker.begin(Entry(b"ws", b"1-0", event))
    assert worker.runs.running == 0


@on
async def test_connections_run_side_by_side_and_hear_their_own_letters(waiting: Waiting, worker: Worker) -> None:
    worker.begin(http(), *[websocket(number) for number in range(2, 5)])
    await settled()
    for number in (4, 2, 3):
        worker.events.on_message(Incoming(f"i/{number:x}", b"%d-0" % number, str(number), 1))
    worker.events.on_message(Incoming("i/9", b"9-0", "nobody's", 1))
    await settled()
    assert [(each.connection, each.frames) for each in worker.events.sent if isinstance(each, Frames)] == [
        (f"i/{number}", [str(number)]) for number in (4, 2, 3)
    ]
    waiting.go_on.set()
    await worker.drains(0)


@on
async def test_an_event_that_is_read_again_does_not_run_twice(waiting: Waiting, worker: Worker) -> None:
    worker.begin(http(1), http(1), websocket(2), websocket(2))
    await settled()
    assert waiting.runs == 2
    waiting.go_on.set()
    await worker.drains(0)
    assert len(worker.events.commits) == 2


@on
async def test_of_one_connection_two_sendings_run_apart(waiting: Waiting, worker: Worker) -> None:
    """As when the interface had to send it again; which one counts is the interface's to say."""
    entry = http()
    worker.begin(entry, entry._replace(id=b"9-0", event=replace(entry.event, attempt=2)))
    waiting.go_on.set()
    await worker.drains()
    assert sorted(each.entry for each in worker.events.commits if isinstance(each, Response)) == [b"1-0", b"9-0"]


@on
async def test_there_is_room_again_when_a_connection_has_ended(waiting: Waiting, worker: Worker) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asgi, "CAPACITY", 2)
        assert worker.begin(http(1), http(2)) == [False, True]
        stopping = threading.Event()
        reader = asyncio.create_task(asyncio.to_thread(worker.runs.wait_for_room, stopping))
        await settled()
        assert not reader.done()
        waiting.go_on.set()
        await reader
        await worker.drains()
        assert worker.begin(http(3)) == [False]
        await worker.drains()


@on
async def test_a_full_worker_that_is_to_stop_waits_for_nothing(waiting: Waiting, worker: Worker) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asgi, "CAPACITY", 1)
        worker.begin(http())
        stopping = threading.Event()
        stopping.set()
        worker.runs.wait_for_room(stopping)
        waiting.go_on.set()
        await worker.drains()


@on
async def test_a_drain_waits_for_what_is_in_hand(waiting: Waiting, worker: Worker) -> None:
    worker.begin(http())
    draining = asyncio.create_task(worker.drains())
    await settled()
    assert not draining.done()
    waiting.go_on.set()
    await draining
    assert [each.status for each in worker.events.commits if isinstance(each, Response)] == [200]


@on
async def test_sockets_left_at_the_end_of_a_drain_are_closed_with_1012(waiting: Waiting, worker: Worker) -> None:
    worker.begin(websocket())
    await settled()
    await worker.drains(0)
    assert waiting.ends == [1012]
    assert [each.code for each in worker.events.sent if isinstance(each, Closed)] == [1012]
    assert not worker.runs._runs


@on
async def test_sockets_are_closed_one_after_another_before_a_drain_ends(waiting: Waiting, worker: Worker) -> None:
    worker.begin(*map(websocket, range(1, 41)))
    await settled()
    draining = asyncio.create_task(worker.drains(3, rate=40))
    await asyncio.sleep(1.2)  # a second is for those that end by themselves
    assert 0 <= len(waiting.ends) < 40
    await draining
    assert waiting.ends == [1012] * 40


@on
async def test_what_does_not_end_with_its_socket_is_cancelled(waiting: Waiting, worker: Worker) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asgi, "CLOSE_SECONDS", 0)
        worker.begin(http())
        await settled()
        await worker.drains(0)
        await settled()
        assert worker.events.commits == [], "so that it is lost with this worker, and answered for"
        assert not worker.runs._runs


@on
async def test_the_connections_of_a_dead_interface_end_and_no_others(waiting: Waiting, worker: Worker) -> None:
    worker.begin(websocket(1), websocket(2, "other"), http(3))
    await settled()
    worker.events.on_message(InterfaceDied("i"))
    await settled()
    assert waiting.ends == [1006]
    worker.events.on_message(InterfaceDied("other"))
    waiting.go_on.set()
    await worker.drains()
    assert waiting.ends == [1006, 1006]


@on
async def test_what_redis_has_forgotten_ends(waiting: Waiting, worker: Worker) -> None:
    worker.begin(websocket(), http(2))
    await settled()
    worker.events.on_forgotten()
    waiting.go_on.set()
    await worker.drains()
    assert waiting.ends == [1012]
    assert [each.code for each in worker.events.sent if isinstance(each, Closed)] == [1012]


def test_lifespans_start_before_anything_runs_and_end_behind_the_last() -> None:
    said: list[str] = []

    def application(name: str) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["state"]["own"] = "changed"
                return said.append(f"{name} {scope['state']['name']} {'own' in scope['state']}")
            scope["state"]["name"] = name
            for what in ("startup", "shutdown"):
                await receive()
                said.append(f"{name} {what}")
                await send({"type": f"lifespan.{what}.complete"})
            return None

        return app

    @scenario
    async def run() -> None:
        worker = Worker(Application(http={"/": application("one"), "/two": application("two")}))
        for lifespan in worker.runs._lifespans.values():
            await lifespan.start()
        worker.begin(http(1), http(2, "/two"), http(3))
        await worker.drains()

    run()
    assert sorted(said[:2]) == ["one startup", "two startup"]
    assert said[2:5] == ["one one True", "two two True", "one one True"]
    assert sorted(said[5:]) == ["one shutdown", "two shutdown"]


def test_a_failed_startup_is_a_target_error() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})

    @scenario
    async def run() -> None:
        worker = Worker(Application(http=failing))
        (lifespan,) = worker.runs._lifespans.values()
        with pytest.raises(TargetError, match="the cellar is flooded"):
            await lifespan.start()

    run()


def test_the_scope_is_as_asgi_has_it() -> None:
    sent = scope(headers=[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], root_path="/r", path="/r/a b")
    made = scope_of("http", sent, {"shared": 1})
    assert made == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "root_path": "/r",
        "path": "/r/a b",
        "raw_path": b"/a%20b",
        "query_string": b"q=1",
        "headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")],
        "client": ("1.2.3.4", 5),
        "server": ("h", 8000),
        "state": {"shared": 1},
        "extensions": {},
    }
    socket = scope_of("websocket", replace(sent, subprotocols=["chat"]), {})
    assert (socket["type"], socket["subprotocols"], "method" in socket) == ("websocket", ["chat"], False)
    assert socket["extensions"] == {"websocket.http.response": {}}
