"""A7: user code ends however it likes. One event ends with it, is told once, and everything else goes on."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES, Machine, new_machine, until
from tests.scenarios.test_demo import SECONDS, get

ENDS = """
import asyncio, sys

def end(how):
    if how == "exit":
        sys.exit(1)
    raise {"cancelled": asyncio.CancelledError, "interrupt": KeyboardInterrupt, "generator": GeneratorExit,
           "base": BaseException, "stop": StopIteration}[how]()

async def later(how):
    end(how)

async def async_end(how):
    kind, _, rest = how.partition("-")
    if how == "cancelled":  # what a task says that somebody else has cancelled
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
    elif how == "itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(60)
    elif kind == "awaited":
        await asyncio.create_task(later(rest))
    elif kind == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(later(rest))
    elif kind == "thread":
        await asyncio.to_thread(end, rest)
    elif kind == "task":  # nobody awaits it
        asyncio.create_task(later(rest))
        await asyncio.sleep(0.01)
    elif kind == "callback":
        asyncio.get_running_loop().call_soon(end, rest)
        await asyncio.sleep(0.01)
    else:
        end(how)
"""
CONSUMERS = (
    ENDS
    + """
from asgictl import Application, Channel, Group, path

def view(environ, start_response):
    kind, _, how = environ["PATH_INFO"][1:].partition("/")
    if kind == "job":
        Channel("work").send({"how": how})
    elif kind == "async-job":
        Channel("awork").send({"how": how})
    elif kind == "view":
        end(how)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body(kind, how)

class Body:
    def __init__(self, kind, how):
        self.kind, self.how = kind, how
    def __iter__(self):
        if self.kind == "first":
            end(self.how)
        yield b"begun "
        if self.kind == "body":
            end(self.how)
        yield b"ended"
    def close(self):
        if self.kind == "close":
            end(self.how)

async def answer(send, *parts):
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"ended"})

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return await end_lifespan(receive, send)
    _, kind, how = scope["path"][1:].split("/")
    if kind == "view":
        await async_end(how)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if kind == "body":
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await async_end(how)
    await send({"type": "http.response.body", "body": b"ended"})

async def end_lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await async_end("cancelled")

def connects(message):
    if message.params["kind"] == "connect":
        end(message.params["how"])
    message.accept()

def receives(message):
    message.reply(text="never seen")
    Group("echo").send(text="never seen")
    end(message.params["how"])

def leaves(message):
    if message.params["kind"] == "disconnect":
        end(message.params["how"])

async def async_connects(message):
    if message.params["kind"] == "connect":
        await async_end(message.params["how"])
    message.accept()

async def async_receives(message):
    await async_end(message.params["how"])
    message.reply(text="goes on")

async def async_leaves(message):
    if message.params["kind"] == "disconnect":
        await async_end(message.params["how"])

def echo_joins(message):
    message.join("echo")
    message.accept()

def work(message):
    end(message.content["how"])

async def awork(message):
    await async_end(message.content["how"])

app = Application(
    http={"/": view, "/asgi": asgi},
    websocket=[
        path("/echo", connect=echo_joins, receive=lambda message: message.reply(text=message.text)),
        path("/sync/{kind}/{how}", connect=connects, receive=receives, disconnect=leaves),
        path("/async/{kind}/{how}", connect=async_connects, receive=async_receives, disconnect=async_leaves),
    ],
    background={"work": work, "awork": awork},
)
"""
)
SOCKETS = (
    ENDS
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        end("exit")
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ended"})
        return
    kind, how = scope["path"][1:].split("/")
    await receive()
    if kind == "before":
        await async_end(how)
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if kind == "after":
            await async_end(how)
        await send({"type": "websocket.send", "text": "goes on"})
    if kind == "left":
        await async_end(how)
"""
)
PLAIN = ["exit", "interrupt", "generator", "base", "cancelled"]
IN_TASKS = [*PLAIN, "itself", "awaited-exit", "awaited-interrupt", "awaited-cancelled", "group-exit", "thread-exit"]
UNHEARD = ["task-exit", "task-interrupt", "task-base", "callback-exit", "callback-interrupt"]


class Site:
    """An instance of one process that runs the application."""

    def __init__(self, machine: Machine, mode: str, target: str) -> None:
        self.machine = machine
        self.mode = mode
        self.url, self.ws = machine.url, machine.ws
        self.target = target
        self._process = "worker-00" if mode == "split" else "server-00"
        self.pids = sorted(machine.pids())

    def log(self) -> str:
        return self.machine.log(self._process)

    def told(self, what: str, of: str = "") -> None:
        """Wait until one line, and no more, names TARGET and the event."""
        line = f"{of or self.target}: {what}"
        until(lambda: self.log().count(line) == 1, f"{line!r} is logged once")

    def serves(self) -> None:
        """The same processes go on."""
        assert get(self.url + "/hello/")[0] == 200
        assert sorted(self.machine.pids()) == self.pids

    def in_hand(self) -> int:
        """Return how many events are in flight, and how many connections are held."""
        status = self.machine.status()
        counts: list[Any] = [process.get(key, 0) for process in status["processes"] for key in KINDS]
        return sum(count or 0 for count in counts)

    def pending(self) -> int:
        """Return how many events stand in Redis."""
        socket = self.machine.runtime / "asgictl/default/redis.sock"
        if not socket.exists():
            return 0
        with redis.Redis.from_url(f"unix://{socket}") as client:
            return sum(client.xlen(stream) for stream in client.scan_iter("asgictl:{default}:ch:*", _type="stream"))


KINDS = ("running", "http", "websockets")


@contextmanager
def site_of(source: str, mode: str, directory: Path, *arguments: str) -> Iterator[Site]:
    (directory / "app.py").write_text(textwrap.dedent(source))
    with new_machine() as machine:
        machine.directory, machine.mode = directory, mode
        machine.start("app:app", "--mode", mode, "--workers", "1", *arguments)
        site = Site(machine, mode, "app:app")
        yield site
        until(lambda: site.in_hand() == 0, "nothing is left in flight")
        until(lambda: site.pending() == 0, "no event is left in Redis")
        assert sorted(machine.pids()) == site.pids, "every process lives on"


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(CONSUMERS, request.param, tmp_path_factory.mktemp("consumers")) as made:
        yield made


@pytest.fixture(scope="module", params=MODES)
def sockets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(SOCKETS, request.param, tmp_path_factory.mktemp("sockets")) as made:
        yield made


@pytest.fixture(scope="module")
def neighbour(site: Site) -> Iterator[ClientConnection]:
    with connect(site.ws + "/echo") as ws:
        yield ws


def echoes(neighbour: ClientConnection) -> None:
    neighbour.send("still there")
    assert neighbour.recv(SECONDS) == "still there"


def closed_with(ws: ClientConnection) -> int:
    """Return the code of the close frame that comes next, 1006 when none does."""
    with pytest.raises(ConnectionClosed) as closed:
        ws.recv(SECONDS)
    return closed.value.rcvd.code if closed.value.rcvd else 1006


@pytest.mark.parametrize("how", [*PLAIN, "stop"])
@pytest.mark.parametrize("kind", ["view", "first"])
def test_a_view_that_ends_before_its_response(site: Site, neighbour: ClientConnection, kind: str, how: str) -> None:
    assert get(f"{site.url}/{kind}/{how}")[0] == 500
    site.told(f"GET /{kind}/{how} failed")
    site.serves()
    echoes(neighbour)


@pytest.mark.parametrize("how", PLAIN)
def test_a_generator_that_ends_within_its_response_cuts_it_off(site: Site, how: str) -> None:
    with pytest.raises(OSError, match=r"IncompleteRead|reset|closed|Remote"):
        read(f"{site.url}/body/{how}")
    site.told(f"GET /body/{how} failed")
    site.serves()


def read(url: str) -> bytes:
    """As get(), but for a response that is cut off: OSError."""
    from http.client import HTTPException

    try:
        return get(url)[2]
    except HTTPException as error:
        raise OSError(repr(error)) from error


@pytest.mark.parametrize("how", PLAIN)
def test_a_close_that_ends_changes_nothing_of_the_response(site: Site, how: str) -> None:
    assert get(f"{site.url}/close/{how}") == (200, "text/plain", b"begun ended")
    site.told(f"GET /close/{how}: close() failed")
    site.serves()


@pytest.mark.parametrize("how", IN_TASKS)
def test_an_asgi_view_that_ends_before_its_response(site: Site, neighbour: ClientConnection, how: str) -> None:
    assert get(f"{site.url}/asgi/view/{how}")[0] == 500
    if (site.mode, how) != ("inprocess", "itself"):  # of whom a server may think that it has cancelled this task
        site.told(f"GET /asgi/view/{how} failed")
    site.serves()
    echoes(neighbour)


@pytest.mark.parametrize("how", IN_TASKS)
def test_an_asgi_view_that_ends_within_its_response_is_cut_off(site: Site, how: str) -> None:
    with pytest.raises(OSError, match=r"IncompleteRead|reset|closed|Remote"):
        read(f"{site.url}/asgi/body/{how}")
    if (site.mode, how) != ("inprocess", "itself"):
        site.told(f"GET /asgi/body/{how} failed")
    site.serves()


@pytest.mark.parametrize("how", UNHEARD)
def test_a_task_of_an_asgi_view_that_nobody_awaits(site: Site, how: str) -> None:
    before = lost(site)
    assert get(f"{site.url}/asgi/view/{how}") == (200, "text/plain", b"ended")
    until(lambda: lost(site) == before + 1, "it is told once")
    site.serves()


def lost(site: Site) -> int:
    """Return how many exceptions were told that nobody has awaited."""
    log = site.log()
    return log.count("Task exception was never retrieved") + log.count("a callback of the event loop failed")


@pytest.mark.parametrize(("kind", "how"), [*(("sync", how) for how in PLAIN), *(("async", how) for how in IN_TASKS)])
def test_a_connect_consumer_that_ends_refuses_with_500(site: Site, kind: str, how: str) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        connect(f"{site.ws}/{kind}/connect/{how}")
    site.told(f"websocket.connect /{kind}/connect/{how} failed")
    site.serves()


@pytest.mark.parametrize(("kind", "how"), [*(("sync", how) for how in PLAIN), *(("async", how) for how in IN_TASKS)])
def test_a_receive_consumer_that_ends_closes_with_1011(
    site: Site, neighbour: ClientConnection, kind: str, how: str
) -> None:
    with connect(f"{site.ws}/{kind}/receive/{how}") as ws:
        ws.send("x")
        assert closed_with(ws) == 1011
    site.told(f"websocket.receive /{kind}/receive/{how} failed")
    site.serves()
    echoes(neighbour)


@pytest.mark.parametrize("how", UNHEARD)
def test_a_task_of_an_async_consumer_that_nobody_awaits(site: Site, neighbour: ClientConnection, how: str) -> None:
    with connect(f"{site.ws}/async/receive/{how}") as ws:
        for _ in range(2):
            ws.send("x")
            assert ws.recv(SECONDS) == "goes on"
    site.serves()
    echoes(neighbour)


@pytest.mark.parametrize(("kind", "how"), [*(("sync", how) for how in PLAIN), *(("async", how) for how in IN_TASKS)])
def test_a_disconnect_consumer_that_ends(site: Site, kind: str, how: str) -> None:
    with connect(f"{site.ws}/{kind}/disconnect/{how}"):
        pass
    site.told(f"websocket.disconnect /{kind}/disconnect/{how} failed")
    site.serves()


@pytest.mark.parametrize(("kind", "how"), [*(("job", how) for how in PLAIN), *(("async-job", how) for how in IN_TASKS)])
def test_a_job_that_ends(site: Site, kind: str, how: str) -> None:
    before = site.log().count("failed with message")
    assert get(f"{site.url}/{kind}/{how}")[0] == 200
    until(lambda: site.log().count("failed with message") == before + 1, "it is told")
    until(lambda: site.pending() == 0, "it is done")
    site.serves()


@pytest.mark.parametrize("how", UNHEARD)
def test_a_task_of_an_async_job_that_nobody_awaits(site: Site, how: str) -> None:
    assert get(f"{site.url}/async-job/{how}")[0] == 200
    until(lambda: site.pending() == 0, "it is done")
    site.serves()


@pytest.mark.parametrize("how", IN_TASKS)
def test_an_asgi_socket_that_ends_before_its_handshake_is_refused_with_500(sockets: Site, how: str) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        connect(f"{sockets.ws}/before/{how}")
    if (sockets.mode, how) != ("inprocess", "itself"):
        sockets.told(f"WebSocket /before/{how} failed")
    sockets.serves()


@pytest.mark.parametrize("how", IN_TASKS)
def test_an_asgi_socket_that_ends_closes_with_1011(sockets: Site, how: str) -> None:
    with connect(f"{sockets.ws}/after/{how}") as ws:
        ws.send("x")
        code = closed_with(ws)
    if (sockets.mode, how) != ("inprocess", "itself"):
        assert code == 1011
        sockets.told(f"WebSocket /after/{how} failed")
    sockets.serves()


@pytest.mark.parametrize("how", UNHEARD)
def test_a_task_of_an_asgi_socket_that_nobody_awaits(sockets: Site, how: str) -> None:
    with connect(f"{sockets.ws}/after/{how}") as ws:
        for _ in range(2):
            ws.send("x")
            assert ws.recv(SECONDS) == "goes on"
    sockets.serves()


@pytest.mark.parametrize("how", PLAIN)
def test_an_asgi_socket_that_ends_after_its_client_has(sockets: Site, how: str) -> None:
    with connect(f"{sockets.ws}/left/{how}"):
        pass
    sockets.told(f"WebSocket /left/{how} failed")
    sockets.serves()


def test_a_lifespan_that_ends_before_it_has_answered_is_none(sockets: Site) -> None:
    until(
        lambda: sockets.log().count("the application does not support lifespan: SystemExit(1)") == 1, "it is told once"
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_target_that_ends_when_it_is_imported(mode: str, tmp_path: Path) -> None:
    with new_machine() as machine:
        machine.directory = tmp_path
        (tmp_path / "app.py").write_text("raise KeyboardInterrupt('of its own')\n")
        done = machine.run("start", "app:app", "--mode", mode, "--bind", f"127.0.0.1:{machine.port}")
        assert "KeyboardInterrupt: of its own" in done.stderr
        assert "asgictl/" not in done.stderr, "the traceback is theirs, not ours"
        assert done.returncode == 3
