"""What the connections of one server share."""

import inspect
import resource
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server as UvicornServer
from uvicorn.server import ServerState

from asgictl.interface import limits as bounds
from asgictl.interface.edge import Deadlines, Edge
from asgictl.interface.edge_http import HTTPProtocol
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import Backend


def deadlines() -> tuple[Deadlines, list[str]]:
    expired: list[str] = []
    return Deadlines(10, expired.append), expired


def test_who_is_due_is_expired_once_and_in_order() -> None:
    made, expired = deadlines()
    made.start("a", 0)
    made.start("b", 1)
    made.start("c", 2)
    made.check(9.9)
    assert expired == []
    made.check(11)
    made.check(11)
    assert (expired, made.oldest()) == (["a", "b"], "c")


def test_who_begins_again_has_all_its_time_again() -> None:
    made, expired = deadlines()
    made.start("a", 0)
    made.start("b", 1)
    made.start("a", 5)
    assert made.oldest() == "b"
    made.check(14.9)
    assert expired == ["b"]
    made.check(15)
    assert expired == ["b", "a"]


def test_who_is_stopped_is_not_due() -> None:
    made, expired = deadlines()
    made.start("a", 0)
    made.stop("a")
    made.stop("a")
    made.check(1000)
    assert (expired, made.oldest()) == ([], None)


def test_who_expires_may_begin_again_or_stop_others() -> None:
    def expire(name: str) -> None:
        made.start(name, 100)
        made.stop("b")

    made = Deadlines(10, expire)
    made.start("a", 0)
    made.start("b", 100)
    made.check(10)
    assert made.oldest() == "a"
    made.check(109)
    assert made.oldest() == "a"


class Each:
    """A connection that notes what is done to it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def close_idle(self) -> None:
        self.told.append("idle")

    def refuse_late(self) -> None:
        self.told.append("late")

    def check_progress(self) -> None:
        self.told.append("progress")

    def check_linger(self) -> None:
        self.told.append("linger")

    def send_ping(self) -> None:
        self.told.append("ping")

    def miss_pong(self) -> None:
        self.told.append("pong")

    def client_left(self) -> None:
        self.told.append("left")

    @property
    def transport(self) -> Any:
        return SimpleNamespace(abort=lambda: self.told.append("abort"))


def adopted(state: ServerState | None = None, **settings: Any) -> Edge:
    edge = Edge(Backend(), "")
    edge.adopt(uvicorn.Config(edge, log_config=None, **settings), state or ServerState())
    return edge


DUE = {
    "keep_alive": "idle",
    "first_byte": "idle",
    "header": "late",
    "handshake": "late",
    "linger": "linger",
    "closing": "abort",
    "stalled": "progress",
    "ping": "ping",
    "pong": "pong",
}


@pytest.mark.parametrize("name", DUE)
@scenario
async def test_the_clock_expires_all_kinds_of_deadlines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TICK_SECONDS", 0.001)
    edge = adopted()
    each = Each()
    getattr(edge, name).start(each, edge.loop.time() - 1000)
    while not each.told:
        await settled()
    assert each.told == [DUE[name]]


@pytest.mark.parametrize("name", DUE)
@scenario
async def test_a_connection_that_is_lost_is_forgotten(name: str) -> None:
    edge = adopted()
    each = Each()
    getattr(edge, name).start(each, 0)
    edge.held.add(each)
    edge.forget(each)
    assert (getattr(edge, name).oldest(), edge.held) == (None, set())


@scenario
async def test_the_clock_goes_on_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TICK_SECONDS", 0.001)
    edge = adopted()
    failed: list[Any] = []
    edge.loop.set_exception_handler(lambda _loop, context: failed.append(context["exception"]))
    edge.stalled.start("no connection at all", 0)
    each = Each()
    while not failed:
        await settled()
    edge.header.start(each, 0)
    while not each.told:
        await settled()
    assert [type(error) for error in failed] == [AttributeError]


@scenario
async def test_what_uvicorn_knows_is_taken_once() -> None:
    state = ServerState()
    edge = adopted(state, timeout_keep_alive=7, ws_ping_interval=3, ws_ping_timeout=4)
    assert edge.connections is state.connections
    each = Each()
    for deadlines, seconds in ((edge.keep_alive, 7), (edge.ping, 3), (edge.pong, 4)):
        deadlines.start(each, 0)
        deadlines.check(seconds - 0.1)
        assert each.told == []
        deadlines.check(seconds)
        assert each.told.pop()
    kept = edge.keep_alive
    edge.adopt(edge._config, state)
    assert edge.keep_alive is kept
    assert edge.capacity == resource.getrlimit(resource.RLIMIT_NOFILE)[0] - bounds.SPARE_FILES


@scenario
async def test_pings_can_be_turned_off() -> None:
    edge = adopted(ws_ping_interval=None, ws_ping_timeout=None)
    each = Each()
    for deadlines in (edge.ping, edge.pong):
        deadlines.start(each, 0)
        deadlines.check(1e12)
    assert each.told == []


@scenario
async def test_there_is_room_until_files_run_out() -> None:
    edge = adopted()
    edge.capacity = 2
    edge.connections.update(["one", "two"])
    assert edge.make_room()
    assert edge.backend.rejections.snapshot() == {}


@scenario
async def test_each_new_connection_takes_the_place_of_an_idle_one() -> None:
    edge = adopted()
    edge.capacity = 0
    edge.connections.add("new")
    idle, silent, busy = Each(), Each(), Each()
    edge.first_byte.start(silent, 0)
    edge.keep_alive.start(idle, 1)
    edge.header.start(busy, 0)
    assert [edge.make_room() for _ in range(3)] == [True, True, False]
    assert (idle.told, silent.told, busy.told) == (["idle"], ["idle"], [])
    assert edge.backend.rejections.snapshot() == {bounds.TOO_MANY_FILES: 2}


class Crowd(Each):
    """A connection whose head is not whole, and of so many bytes."""

    def __init__(self, edge: Edge, size: int) -> None:
        super().__init__()
        self._edge, self._size = edge, size
        edge.header.start(self, 0)
        edge.unfinished_bytes += size
        edge.bound_unfinished()

    def refuse_crowded(self) -> None:
        self.told.append("crowded")
        self._edge.unfinished_bytes -= self._size


@scenario
async def test_the_oldest_unfinished_heads_are_refused_until_the_rest_is_small_enough() -> None:
    edge = Edge(Backend(unfinished_header_bytes=100), "")
    crowd = [Crowd(edge, 30) for _ in range(3)]
    assert [each.told for each in crowd] == [[], [], []]
    last = Crowd(edge, 70)
    assert [each.told for each in (*crowd, last)] == [["crowded"], ["crowded"], [], []]
    assert (edge.unfinished_bytes, edge.header.oldest()) == (100, crowd[2])


def test_default_headers_are_encoded_once_for_each_of_uvicorn_s_lists() -> None:
    edge = Edge(Backend(), "")
    headers = [(b"date", b"today")]
    first = edge.defaults(headers)
    assert first.encoded == b"date: today\r\n"
    assert edge.defaults(headers) is first
    assert edge.defaults([(b"date", b"tomorrow")]).encoded == b"date: tomorrow\r\n"


@scenario
async def test_only_the_lifespan_comes_by_asgi() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    edge = Edge(Backend(), "")
    await edge({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.complete"}]
    with pytest.raises(RuntimeError, match="http"):
        await edge({"type": "http"}, receive, send)


# What edge_http uses of uvicorn: six names, held against the uvicorn that is installed.


def test_uvicorn_makes_a_protocol_by_these_keywords() -> None:
    source = inspect.getsource(UvicornServer.startup)
    call = source.partition("config.http_protocol_class(")[2].partition("return")[0].partition("loop =")[0]
    assert {word.strip() for word in call.replace("\n", " ").split() if word.endswith(",")} == {
        "config=config,",
        "server_state=self.server_state,",
        "app_state=self.lifespan.state,",
        "_loop=_loop,",
    }
    ours, theirs = (list(inspect.signature(each).parameters) for each in (HTTPProtocol, HttpToolsProtocol))
    assert ours == theirs == ["config", "server_state", "app_state", "_loop"]


def test_uvicorn_s_state_has_these_names() -> None:
    state = ServerState()
    assert (state.connections, state.tasks, state.total_requests, state.default_headers) == (set(), set(), 0, [])


def test_uvicorn_calls_shutdown_of_each_connection() -> None:
    assert "connection.shutdown()" in inspect.getsource(UvicornServer.shutdown)
    assert callable(HTTPProtocol.shutdown)


def test_uvicorn_s_configuration_has_these_names() -> None:
    config = uvicorn.Config(Edge(Backend(), ""), log_config=None)
    for name in (
        *("limit_concurrency", "root_path", "timeout_keep_alive", "ws_max_size", "ws_per_message_deflate"),
        *("ws_ping_interval", "ws_ping_timeout"),
    ):
        assert hasattr(config, name), name
    config.load()
    assert config.loaded_app
