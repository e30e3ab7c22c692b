"""The worker's loop, with a layer that holds events in memory."""

import threading
from typing import Any

import pytest

from asgictl.application import Application, Consumer, Group, path
from asgictl.layers.redis_worker import Entry
from asgictl.messages import (
    VERSION,
    Broadcast,
    Connect,
    Disconnect,
    Done,
    Event,
    Request,
    Response,
    Scope,
    decode_event,
    encode_scope,
)
from asgictl.turn import Message
from asgictl.worker.loop import Loop, plain

SCOPE = Scope("GET", "http", "1.1", "", "/hello", b"/hello", b"", [], None, None)


class Layer:
    """Gives out these events in one read, then has the loop stop."""

    def __init__(self, stopping: threading.Event, *events: Event) -> None:
        self.stopping = stopping
        self.entries = [Entry(b"ch", b"%d-0" % number, event) for number, event in enumerate(events)]
        self.counts: list[int] = []
        self.commits: list[tuple[bytes, Response | Done, list[Broadcast]]] = []
        self.farewells: list[bytes] = []
        self.settled = True
        self.sent = 0

    def read(self, count: int) -> list[Entry]:
        self.counts.append(count)
        self.stopping.set()
        return self.entries

    def commit(self, entry: Entry, reply: Response | Done, broadcasts: list[Broadcast], farewell: bytes = b"") -> None:
        self.farewells.append(farewell)
        self.commits.append((entry.id, reply, broadcasts))

    def send_part(self, response: Response) -> None: ...

    def flush(self) -> None:
        self.sent = len(self.commits)


class AsyncTurns:
    def __init__(self) -> None:
        self.begun: list[Entry] = []
        self.held: set[bytes] = set()
        self.finished = False

    def holds(self, entry: Entry) -> bool:
        return entry.id in self.held

    def begin(self, entry: Entry, turn: object) -> None:
        self.begun.append(entry)

    def finish(self) -> None:
        self.finished = True


def request(path: str = "/hello") -> Request:
    changed = Scope("GET", "http", "1.1", "", path, path.encode(), b"", [], None, None)
    return Request("i/1", 1, changed, b"")


class Notes:
    """What the controller would find after a death."""

    def __init__(self, *old: bytes) -> None:
        self.noted = list(old)

    def clear(self) -> None:
        self.noted.clear()

    def note(self, stream: bytes, entry: bytes) -> None:
        self.noted.append(b"%b %b" % (stream, entry))


def ran(
    application: Application,
    *events: Event,
    held: frozenset[bytes] = frozenset(),
    notes: Notes | None = None,
    settled: bool = True,
) -> tuple[Layer, AsyncTurns]:
    stopping = threading.Event()
    layer: Any = Layer(stopping, *events)
    layer.settled = settled
    started: Any = notes or Notes()
    async_turns: Any = AsyncTurns()
    async_turns.held = held
    Loop(application, layer, stopping, async_turns, started).run()
    return layer, async_turns


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    Group("g").send(text="from a view")
    return [b"hello"]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Serves nothing here."""


def test_every_event_of_a_read_is_committed_and_sent_before_the_loop_ends() -> None:
    layer, _ = ran(Application(http=hello), request(), request())
    assert [commit[0] for commit in layer.commits] == [b"0-0", b"1-0"]
    assert layer.sent == 2


@pytest.mark.parametrize(
    ("settled", "noted"), [(True, [b"ch 0-0", b"ch 1-0"]), (False, [b"old", b"ch 0-0", b"ch 1-0"])]
)
def test_what_starts_is_noted_and_kept_until_it_is_committed(settled: bool, noted: list[bytes]) -> None:
    notes = Notes(b"old")
    ran(Application(http=hello), request(), request(), notes=notes, settled=settled)
    assert notes.noted == noted


def test_what_a_view_sends_to_a_group_is_committed_with_its_response() -> None:
    layer, _ = ran(Application(http=hello), request())
    _, reply, broadcasts = layer.commits[0]
    assert isinstance(reply, Response)
    assert (reply.body, reply.entry) == (b"hello", b"0-0")
    assert broadcasts == [Broadcast("g", "from a view")]


@pytest.mark.parametrize(("path", "status"), [("/other", 404), ("/asgi", 501)])
def test_a_path_that_this_worker_cannot_serve_is_answered(path: str, status: int) -> None:
    layer, _ = ran(Application(http={"/hello": hello, "/asgi": asgi}), request(path))
    reply = layer.commits[0][1]
    assert isinstance(reply, Response)
    assert reply.status == status


def websocket(consumer: Consumer) -> Application:
    return Application(websocket=[path("/hello", connect=consumer)])


CONNECT = Connect("i/1", 1, 1, encode_scope(SCOPE), b"")


def test_a_turn_is_run_and_committed() -> None:
    layer, _ = ran(websocket(lambda message: message.accept()), CONNECT)
    reply = layer.commits[0][1]
    assert isinstance(reply, Done)
    assert reply.accept is not None
    assert layer.farewells == [b""], "no consumer wants to hear of the end"


def test_a_turn_is_committed_with_its_connections_farewell() -> None:
    application = Application(websocket=[path("/hello", connect=lambda message: message.accept(), disconnect=print)])
    layer, _ = ran(application, CONNECT)
    assert isinstance(decode_event(b"%d" % VERSION, layer.farewells[0]), Disconnect)


def test_an_async_consumers_turn_is_handed_on_once() -> None:
    async def accept(message: Message) -> None:
        message.accept()

    layer, async_turns = ran(websocket(accept), CONNECT, CONNECT, held=frozenset({b"1-0"}))
    assert [entry.id for entry in async_turns.begun] == [b"0-0"]
    assert layer.commits == []


def test_a_plain_response_is_whole() -> None:
    reply = plain(request(), 404, "Not Found")
    assert (reply.status, reply.body, reply.more) == (404, b"Not Found\n", False)
    assert dict(reply.headers)[b"content-length"] == b"10"
