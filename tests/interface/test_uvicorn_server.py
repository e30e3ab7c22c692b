"""uvicorn's server ends at once when it is told to, by whichever thread, and keeps its Date."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from asgictl.interface.edge import Edge
from asgictl.interface.uvicorn_server import EdgeServer, Server
from tests.conftest import until
from tests.interface.edges import GET, Backend, hello


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """uvicorn raises again what it was told, once it has drained."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def application(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def served(tell: Any) -> tuple[Server, float]:
    """Serve until tell(server) has had it end; returns how long that took."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(uvicorn.Config(application, lifespan="off", log_config=None))

    async def main() -> float:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # it waits for its next tick
        began = asyncio.get_running_loop().time()
        tell(server)
        await asyncio.wait_for(serving, 60)
        return asyncio.get_running_loop().time() - began

    return server, asyncio.run(main())


def test_it_ends_when_told_to_and_not_at_its_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.interface.uvicorn_server.TICK_SECONDS", 60.0)
    server, seconds = served(lambda server: server.handle_exit(signal.SIGTERM, None))
    assert server.should_exit
    assert seconds < 20


def test_another_thread_may_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.interface.uvicorn_server.TICK_SECONDS", 60.0)

    def tell(server: Server) -> None:
        threading.Thread(target=server.handle_exit, args=(signal.SIGINT, None)).start()

    assert served(tell)[1] < 20


def test_the_date_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.interface.uvicorn_server.TICK_SECONDS", 0.05)
    dates: list[bytes] = []

    class Counting(Server):
        async def on_tick(self, counter: int) -> bool:
            ended = await super().on_tick(counter)
            dates.extend(value for name, value in self.server_state.default_headers if name == b"date")
            return ended

    monkeypatch.setattr("tests.interface.test_uvicorn_server.Server", Counting)

    def tell(server: Server) -> None:
        until(lambda: len(dates) > 4, "its Date has been set again and again")
        server.handle_exit(signal.SIGTERM, None)

    served(lambda server: threading.Thread(target=tell, args=(server,)).start())


def edge_served(tell: Any, **limits: Any) -> tuple[bytes, float]:
    """Serve an edge until tell(server) has had it end; returns what an idle connection hears meanwhile, and when."""
    listener = socket.create_server(("127.0.0.1", 0))
    edge = Edge(Backend(hello, **limits), "")
    options: dict[str, Any] = {"http": "asgictl.interface.edge_http:HTTPProtocol", "interface": "asgi3", "ws": "none"}
    config = uvicorn.Config(edge, lifespan="off", log_config=None, proxy_headers=False, loop="uvloop", **options)
    server = EdgeServer(config, edge)

    async def main() -> tuple[bytes, float]:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        tell(server)
        while not edge.is_draining:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
        seconds = asyncio.get_running_loop().time() - began
        writer.write(GET)
        heard = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        await asyncio.wait_for(serving, 60)
        return heard, seconds

    return asyncio.run(main())


def terminate(server: Server) -> None:
    server.handle_exit(signal.SIGTERM, None)


def terminate_twice(server: Server) -> None:
    terminate(server)
    terminate(server)


def test_what_was_accepted_before_a_drain_is_served_and_closed() -> None:
    heard, _ = edge_served(terminate)
    assert heard.endswith(b"connection: close\r\n\r\nhello")


@pytest.mark.parametrize(
    ("tell", "waits"),
    [(terminate, True), (terminate_twice, False), (lambda server: server.handle_exit(signal.SIGINT, None), False)],
)
def test_sigterm_alone_waits_for_the_delay(tell: Any, waits: bool) -> None:
    delay_seconds = 0.8 if waits else 60.0
    _, seconds = edge_served(tell, shutdown_delay_seconds=delay_seconds)
    assert (seconds >= delay_seconds) == waits
