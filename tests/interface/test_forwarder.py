"""An interface's backend, between a fake server that speaks ASGI and a fake channel layer."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any

import pytest

from asgictl.config import Bind, InterfaceConfig, Limits
from asgictl.interface.edge_asgi import Aborted, ASGIEdge
from asgictl.interface.forwarder import BUDGET_BYTES, BUDGET_SHARE, LEAST_CREDIT_BYTES, Forwarder
from asgictl.interface.in_flight import InFlight
from asgictl.layers.base import Answered, OnItsWay
from asgictl.layers.memory import Added
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.manifest import Manifest, Path, encode_manifest
from asgictl.wire.messages import (
    VERSION,
    WINDOW_BYTES,
    Accept,
    Connect,
    Disconnect,
    Done,
    Event,
    Frames,
    Gone,
    Lost,
    Receive,
    Request,
    Response,
    Scope,
    Want,
    WorkerMessage,
    encode,
)
from tests.interface.conftest import settled
from tests.interface.fakes import RecordingRequest

ASGIMessage = MutableMapping[str, Any]
PATHS = [
    Path("/ws", True, True, True),
    Path("/reports", True, True, True, ".reports"),
    Path("/once", True, True, True, at_most_once=True),
]
MANIFEST = Manifest(VERSION, "r1", True, PATHS, {"/slow": ".slow"})
WORKER = "worker.1"
SCOPE = Scope("POST", "http", "1.1", "", "/", b"/", b"", [], None, None)


class Layer:
    """Takes every event at once, and keeps what it is asked."""

    def __init__(self) -> None:
        self.identities = ("i", "i.s")
        self.manifest: bytes | None = encode_manifest(MANIFEST)
        self.added: list[tuple[str, Event]] = []
        self.removed: list[bytes] = []
        self.letters: list[tuple[str, WorkerMessage]] = []
        self.forgotten: list[str] = []
        self.dead_letters: list[tuple[str, Event, str]] = []
        self.ended: list[str] = []
        self.answer: object = b"1-0"
        self.silent_seconds = 0.0
        self.is_taken = False  # whether a worker has what is to be removed

    def append(self, channel: str, event: Event, answered: Answered, *, repeatable: bool) -> OnItsWay:
        self.added.append((channel, event))
        if self.answer is not None:  # else Redis is away
            asyncio.get_running_loop().call_soon(answered, self.answer)
        return Added(len(encode(event)[1]))

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        self.removed.append(entry)
        asyncio.get_running_loop().call_soon(answered, int(not self.is_taken))

    def post(self, inbox: str, letter: WorkerMessage, answered: Answered) -> None:
        self.letters.append((inbox, letter))
        asyncio.get_running_loop().call_soon(answered, b"1-0")

    def forget(self, connection: str) -> None:
        self.forgotten.append(connection)

    def depth(self, channel: str, answered: Answered) -> None:
        pass

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        pass

    def dead_letter(self, channel: str, event: Event, reason: str) -> None:
        self.dead_letters.append((channel, event, reason))

    async def deregister(self) -> None:
        self.ended.append("deregister")

    async def stop(self) -> None:
        self.ended.append("stop")


class Client:
    """One connection to an interface."""

    def __init__(self, forwarder: Forwarder, scope: dict[str, Any]) -> None:
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.sent: list[ASGIMessage] = []
        self.running = asyncio.create_task(self._run(forwarder, scope))

    async def _run(self, forwarder: Forwarder, scope: dict[str, Any]) -> None:
        with suppress(Aborted):
            await ASGIEdge(forwarder)(scope, self.incoming.get, self.send)

    async def send(self, message: ASGIMessage) -> None:
        self.sent.append(message)

    async def says(self, *messages: ASGIMessage) -> None:
        for message in messages:
            self.incoming.put_nowait(message)
        await settled()

    async def leaves(self, kind: str = "http") -> None:
        await self.says({"type": f"{kind}.disconnect"})

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status


class Interface:
    """A forwarder, its layer and its clients."""

    def __init__(self, *, access_log: bool = False, **limits: Any) -> None:
        config = InterfaceConfig(
            "test", "redis://localhost", Bind("127.0.0.1:8000"), Limits(**limits), access_log=access_log
        )
        self.forwarder = Forwarder(config, Readiness(None, "interface", "interface"))
        self.layer = Layer()
        layer: Any = self.layer
        self.forwarder._layer, self.forwarder._loop = layer, asyncio.get_running_loop()
        self.forwarder._in_flight = InFlight(
            layer, config.limits.channel_events, self.forwarder.rejections.add, config.limits.channel_bytes
        )

    async def requests(
        self, path: str = "/", method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None
    ) -> Client:
        client = Client(self.forwarder, {"type": "http", "method": method, "path": path, "headers": headers or []})
        await settled()
        return client

    async def connects(self, path: str = "/ws") -> Client:
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        client = Client(self.forwarder, {"type": "websocket", "path": path, "headers": [], "extensions": extensions})
        await client.says({"type": "websocket.connect"})
        return client

    @property
    def event(self) -> Event:
        return self.layer.added[-1][1]

    async def replies(self, body: bytes = b"hello", sequence: int = 0, **more: Any) -> None:
        """A worker answers the newest request."""
        reply = Response(self.event.connection, sequence, 200, [], body, entry=b"1-0", **more)
        self.forwarder._on_reply(reply, None)
        await settled()

    async def commits(self, **produced: Any) -> None:
        """A worker commits the newest turn."""
        event: Any = self.event
        done = {"frames": [], "state": b"", "accept": None, "close": None, "joins": [], "leaves": [], **produced}
        self.forwarder._on_reply(Done(event.connection, event.number, **done), (1, 0))
        await settled()

    def expire(self) -> None:
        """Let the deadline of every request pass, and the interface look."""
        for pending in self.forwarder._pending_requests.values():
            pending.deadline = min(pending.deadline, 0) if pending.deadline < float("inf") else pending.deadline
        self.forwarder._look()

    def is_clean(self) -> bool:
        """Whether nothing is remembered of any client."""
        forwarder = self.forwarder
        flights = forwarder._in_flight
        return (
            not forwarder._pending_requests
            and not forwarder.sockets
            and forwarder._budget == BUDGET_BYTES
            and not flights._in_flight
            and not any(each.waiting or each.open for each in flights._channels.values())
        )


def scenario(test: Callable[[Interface], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Whatever happens, nothing is left of it."""

    async def main() -> None:
        interface = Interface()
        await asyncio.wait_for(test(interface), 60)
        await settled()
        assert interface.is_clean(), "something was left behind"
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_a_request_is_answered_by_a_worker(interface: Interface) -> None:
    client = await interface.requests("/page")
    channel, event = interface.layer.added[0]
    assert isinstance(event, Request)
    assert (channel, event.scope.path, event.body, event.more) == ("http.request", "/page", b"", False)
    await interface.replies()
    assert [message.get("body") for message in client.sent] == [None, b"hello"]


@scenario
async def test_a_path_with_a_pool_goes_to_the_pools_channel(interface: Interface) -> None:
    await interface.requests("/slow/report")
    assert interface.layer.added[0][0] == "http.request.slow"
    await interface.replies()
    socket = await interface.connects("/reports")
    await interface.commits(accept=Accept(None, []))
    await socket.says({"type": "websocket.receive", "text": "x"})
    await interface.commits()
    await socket.leaves("websocket")
    await interface.commits()
    assert [channel for channel, _ in interface.layer.added[1:]] == [
        "websocket.connect.reports",
        "websocket.receive.reports",
        "websocket.disconnect.reports",
    ]


@scenario
async def test_a_request_before_any_worker_was_ready_is_a_503(interface: Interface) -> None:
    interface.layer.manifest = None
    assert (await interface.requests()).status == 503
    assert interface.layer.added == []


@scenario
async def test_a_small_body_travels_with_the_event(interface: Interface) -> None:
    client = await interface.requests(method="POST", headers=[(b"content-length", b"3")])
    assert interface.layer.added == [], "it has not come yet"
    await client.says({"type": "http.request", "body": b"abc", "more_body": False})
    assert isinstance(interface.event, Request)
    assert (interface.event.body, interface.event.more) == (b"abc", False)
    await interface.replies()


@scenario
async def test_a_body_that_a_worker_asked_for_and_that_does_not_come_in_time_is_a_408(interface: Interface) -> None:
    client = await interface.requests(method="POST", headers=[(b"transfer-encoding", b"chunked")])
    interface.forwarder._on_reply(Want(interface.event.connection, 1, b"1-0", WORKER, 10, 1), None)
    interface.expire()
    await settled()
    assert client.status == 408
    assert interface.layer.letters[-1] == (WORKER, Gone(interface.event.connection, b"1-0"))
    assert interface.forwarder.rejections.snapshot() == {"requests answered 408: The body was not received in time.": 1}


@scenario
async def test_a_body_that_is_too_large_is_a_413_and_no_worker_sees_the_request(interface: Interface) -> None:
    client = await interface.requests(method="POST", headers=[(b"content-length", b"%d" % (1 << 31))])
    assert client.status == 413
    assert interface.layer.added == []


@scenario
async def test_a_body_as_large_as_it_may_be_is_served(interface: Interface) -> None:
    served, refused, limit = RecordingRequest(), RecordingRequest(), interface.forwarder.limits.body_bytes
    interface.forwarder.http(SCOPE, b"", limit, True, served)
    interface.forwarder.http(SCOPE, b"", limit + 1, True, refused)
    assert (served.status, refused.status, len(interface.layer.added)) == (0, 413, 1)
    await interface.replies()
    assert served.is_complete


@scenario
async def test_a_large_body_is_pulled(interface: Interface) -> None:
    client = await interface.requests(method="POST", headers=[(b"transfer-encoding", b"chunked")])
    await client.says({"type": "http.request", "body": b"abc", "more_body": False})
    interface.forwarder._look()
    await settled()
    assert client.incoming.qsize() == 1, "nobody has asked for it"
    interface.forwarder._on_reply(Want(interface.event.connection, 1, b"1-0", WORKER, 10, 1), None)
    await settled()
    assert [inbox for inbox, _ in interface.layer.letters] == [WORKER]
    await interface.replies()
    assert client.running.done()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_whose_client_left_is_taken_out_of_its_channel(method: str) -> None:
    async def main() -> None:
        interface = Interface()
        client = await interface.requests(method=method)
        interface.forwarder._look()
        await client.leaves()
        assert client.running.done()
        assert client.sent == []
        assert interface.layer.removed == [b"1-0"]
        assert interface.is_clean()

    asyncio.run(main())


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_leaves_is_counted_unless_its_response_has_begun(begun: bool) -> None:
    async def main() -> None:
        interface = Interface()
        client = await interface.requests()
        if begun:
            await interface.replies(more=True)
        await client.leaves()
        assert interface.is_clean()
        assert sum(interface.forwarder.rejections.snapshot().values()) == (not begun)
        assert interface.forwarder.figures.requests == {200 if begun else 499: 1}

    asyncio.run(main())


@scenario
async def test_what_comes_for_a_request_that_is_over_is_answered_with_gone(interface: Interface) -> None:
    over: list[Want | Response] = [
        Want("i/0", 1, b"7-0", WORKER, 10),
        Response("i/0", 0, 200, [], b"", True, entry=b"7-0", inbox=WORKER),
    ]
    for reply in over:
        interface.forwarder._on_reply(reply, None)
    assert interface.layer.letters == [(WORKER, Gone("i/0", b"7-0"))] * 2
    interface.forwarder._on_reply(Response("i/0", 0, 200, [], b"the last part"), None)
    interface.forwarder._on_reply(Frames("i/0", ["x"]), None)
    interface.forwarder._on_reply(Lost("i/0", 1, 1, True), None)
    assert len(interface.layer.letters) == 2


@scenario
async def test_a_request_that_no_worker_answers_in_time_is_a_504_and_is_taken_out_of_its_channel(
    interface: Interface,
) -> None:
    client = await interface.requests()
    interface.expire()
    await settled()
    assert client.status == 504
    assert interface.layer.removed == [b"1-0"]
    interface.forwarder._look()
    assert interface.forwarder.figures.rejections == {"requests answered 504: No worker answered in time.": 1}
    assert interface.forwarder.figures.requests == {504: 1}


@scenario
async def test_a_request_that_redis_has_not_taken_in_time_is_a_503(interface: Interface) -> None:
    interface.layer.answer = None
    client = await interface.requests()
    interface.expire()
    await settled()
    assert client.status == 503


@scenario
async def test_a_post_that_may_have_run_is_a_502_and_one_that_redis_refused_a_503(interface: Interface) -> None:
    interface.layer.answer = ConnectionError("lost")
    assert (await interface.requests(method="POST")).status == 502
    interface.layer.answer = RuntimeError("OOM")
    assert (await interface.requests(method="POST")).status == 503
    assert len(interface.layer.added) == 2
    assert interface.forwarder.rejections.snapshot()["events rejected by Redis: OOM"] == 1


@pytest.mark.parametrize("limits", [{"channel_events": 1}, {"channel_bytes": 1}], ids=["events", "bytes"])
def test_a_full_channel_refuses_requests_and_handshakes_and_holds_frames_back(limits: dict[str, Any]) -> None:
    async def main() -> None:
        interface = Interface(**limits)
        waiting = await interface.requests()
        assert (await interface.requests()).status == 503
        await interface.requests("/slow")  # another pool has room
        await interface.replies()
        first = await interface.connects()
        assert (await interface.connects()).status == 503
        await interface.commits(accept=Accept(None, []))
        second = await interface.connects()
        await interface.commits(accept=Accept(None, []))
        await first.says({"type": "websocket.receive", "text": "1"})
        await second.says({"type": "websocket.receive", "text": "2"})
        assert [event.frames for _, event in interface.layer.added if isinstance(event, Receive)] == [["1"]]
        await interface.commits()
        assert [event.frames for _, event in interface.layer.added if isinstance(event, Receive)] == [["1"], ["2"]]
        await interface.commits()
        for client in (first, second):
            await client.leaves("websocket")
            await interface.commits()
        waiting.running.cancel()
        await settled()
        assert interface.is_clean()

    asyncio.run(main())


@scenario
async def test_requests_share_the_budget_and_give_it_back(interface: Interface) -> None:
    async def credit() -> int:
        clients.append(await interface.requests())
        event = interface.event
        assert isinstance(event, Request)
        return event.credit

    clients: list[Client] = []
    first = await credit()
    assert first == min(WINDOW_BYTES, BUDGET_BYTES // BUDGET_SHARE)
    interface.forwarder._budget -= BUDGET_BYTES - first - 100  # as much as others have
    assert await credit() == LEAST_CREDIT_BYTES
    interface.forwarder._budget += BUDGET_BYTES - first - 100
    for client in clients:
        client.running.cancel()


@scenario
async def test_an_aborted_response_leaves_nothing_behind(interface: Interface) -> None:
    client = await interface.requests()
    await interface.replies(more=True, inbox=WORKER)
    await interface.replies(b"", 1, aborted=True)
    assert client.running.done()
    assert client.sent[-1]["more_body"], "it is cut off"


@scenario
async def test_a_handshake_whose_client_left_before_any_worker_took_it_ends_and_nobody_hears_of_it(
    interface: Interface,
) -> None:
    client = await interface.connects()
    await client.leaves("websocket")
    assert interface.layer.removed == [b"1-0"]
    assert [type(event) for _, event in interface.layer.added] == [Connect]


@scenario
async def test_a_handshake_that_a_worker_has_in_hand_is_heard_to_its_end(interface: Interface) -> None:
    interface.layer.is_taken = True
    client = await interface.connects()
    await client.leaves("websocket")
    await interface.commits(accept=Accept(None, []))
    assert isinstance(interface.event, Disconnect)
    assert interface.layer.forgotten == []
    await interface.commits()
    assert interface.layer.forgotten == [interface.event.connection]


@scenario
async def test_a_turn_that_is_given_up_is_kept_with_its_channel(interface: Interface) -> None:
    client = await interface.connects("/once")
    await interface.commits(accept=Accept(None, []))
    await client.says({"type": "websocket.receive", "text": "x"})
    event: Any = interface.event
    interface.forwarder._on_reply(Lost(event.connection, event.number, event.attempt, True), None)
    assert interface.layer.dead_letters == [("websocket.receive", event, "its worker died, attempt 1")]
    await client.leaves("websocket")
    await interface.commits()


@pytest.mark.parametrize("path", ["/nowhere", "/ws"])
def test_a_handshake_that_is_not_for_any_worker_is_refused(path: str) -> None:
    async def main() -> None:
        interface = Interface()
        if path == "/ws":
            interface.layer.manifest = None
        client = await interface.connects(path)
        assert client.status == (503 if path == "/ws" else 404)
        assert interface.is_clean()

    asyncio.run(main())


def test_a_fenced_interface_sends_nothing_more_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        interface = Interface(channel_events=1)
        request = await interface.requests()
        sockets = []
        for _ in range(2):
            sockets.append(await interface.connects())
            await interface.commits(accept=Accept(None, []))
        for socket in sockets:
            await socket.says({"type": "websocket.receive", "text": "x"})
        before = len(interface.layer.added)  # a request, two handshakes, a frame; another frame waits for room
        assert before == 4
        signals: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
        for identity in ("i", "i.s"):
            interface.forwarder._fenced(identity)
        await settled()
        assert request.status == 502
        for socket in sockets:
            await socket.leaves("websocket")
        interface.forwarder._in_flight.forgotten()
        interface.forwarder._look()
        assert (await interface.requests()).status == 503
        assert len(interface.layer.added) == before, "what waited for room went although it was no longer ours"
        assert [number for _, number in signals] == [signal.SIGINT]
        assert interface.is_clean()

    asyncio.run(main())


@scenario
async def test_what_is_open_when_the_server_has_waited_long_enough_is_ended(interface: Interface) -> None:
    waiting, begun = await interface.requests(), await interface.requests()
    await interface.replies(more=True, inbox=WORKER)
    await interface.forwarder.drain()
    await settled()
    assert (waiting.status, begun.running.done()) == (503, True)
    assert interface.layer.letters == [(WORKER, Gone(interface.event.connection, b"1-0"))]
    assert interface.layer.ended == ["deregister", "stop"]


@scenario
async def test_the_last_turns_of_closed_sockets_are_waited_for(interface: Interface) -> None:
    client = await interface.connects()
    await interface.commits(accept=Accept(None, []))
    await client.leaves("websocket")
    draining = asyncio.create_task(interface.forwarder.drain())
    await settled()
    assert not draining.done()
    await interface.commits()
    await draining
    assert interface.layer.ended == ["deregister", "stop"]


def test_requests_and_sockets_are_logged_where_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")

    async def main() -> None:
        interface = Interface(access_log=True)
        await interface.requests("/page")
        await interface.replies()
        client = await interface.connects()
        await interface.commits(accept=Accept(None, []))
        await client.leaves("websocket")
        await interface.connects("/nowhere")

    asyncio.run(main())
    said = [(line.split('"')[1], " ".join(line.split('"')[2].split()[1:3])) for line in caplog.messages]
    assert said == [
        ("GET /page", "200 5"),
        ("WEBSOCKET /ws", "101 open"),
        ("WEBSOCKET /ws", "1006 close"),
        ("WEBSOCKET /nowhere", "404 refused"),
    ]


@scenario
async def test_a_request_is_counted_with_its_status_and_what_of_its_time_the_application_took(
    interface: Interface,
) -> None:
    await interface.requests()
    interface.forwarder._look()
    assert interface.forwarder.figures.http == 1
    await interface.replies(run_seconds=1e-9, worker="worker-00")
    interface.forwarder._look()
    figures = interface.forwarder.figures
    assert (figures.http, figures.requests) == (0, {200: 1})
    assert sum(figures.request_run_seconds[:-1]) == sum(figures.request_wait_seconds[:-1]) == 1
    assert figures.request_seconds[-1] == pytest.approx(figures.request_wait_seconds[-1], abs=1e-8)


@scenario
async def test_a_request_whose_client_left_is_counted_as_such_and_has_no_time(interface: Interface) -> None:
    client = await interface.requests()
    await client.leaves()
    figures = interface.forwarder.figures
    assert (figures.requests, sum(figures.request_seconds)) == ({499: 1}, 0)


@scenario
async def test_sockets_and_their_turns_are_counted(interface: Interface) -> None:
    client = await interface.connects()
    interface.forwarder._look()
    assert interface.forwarder.figures.websockets == 1
    await interface.commits(accept=Accept(None, []), run_seconds=1e-9)
    await client.leaves("websocket")
    await interface.commits()
    interface.forwarder._look()
    figures = interface.forwarder.figures
    assert (figures.websockets, sum(figures.turn_seconds[:-1]), sum(figures.turn_run_seconds[:-1])) == (0, 2, 1)
