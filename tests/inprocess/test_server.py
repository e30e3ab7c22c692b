"""The application inside the server's own process, without a server."""

import asyncio
import threading
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import pytest

from asgictl.app.application import Application, path
from asgictl.app.message import Message
from asgictl.config import Limits
from asgictl.errors import RedisError
from asgictl.inprocess.server import InProcess, limits_of
from asgictl.interface.edge_asgi import ASGIEdge
from asgictl.telemetry.controller_client import Readiness
from tests.conftest import until

ASGIMessage = MutableMapping[str, Any]


class Client:
    """One connection to an application that runs in-process."""

    def __init__(self, served: InProcess, scope: dict[str, Any]) -> None:
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.sent: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.running = asyncio.ensure_future(ASGIEdge(served)(scope, self.incoming.get, self.sent.put))

    async def hears(self) -> ASGIMessage:
        return await asyncio.wait_for(self.sent.get(), 60)


def during_lifespan(
    application: Application, test: Callable[[InProcess], Any], *, threads: int = 2, **limits: Any
) -> None:
    """Run a test between startup and shutdown, and see that no task is left."""

    async def main() -> None:
        served = InProcess(
            application, None, "test", threads, Readiness(None, "server", "server"), "", Limits(**limits)
        )
        lifespan = Client(served, {"type": "lifespan"})
        lifespan.incoming.put_nowait({"type": "lifespan.startup"})
        assert await lifespan.hears() == {"type": "lifespan.startup.complete"}
        await test(served)
        lifespan.incoming.put_nowait({"type": "lifespan.shutdown"})
        assert await lifespan.hears() == {"type": "lifespan.shutdown.complete"}
        await lifespan.running
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    asyncio.run(main())


def test_background_channels_without_a_redis_are_refused() -> None:
    application = Application(background={"thumbs": print})
    with pytest.raises(RedisError, match="--redis"):
        InProcess(application, None, "test", 1, Readiness(None, "server", "server"))


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def post(served: InProcess, headers: list[tuple[bytes, bytes]], *bodies: bytes) -> Client:
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "query_string": b""}
    client = Client(served, {**scope, "headers": headers})
    for body in bodies:
        client.incoming.put_nowait({"type": "http.request", "body": body, "more_body": body != bodies[-1]})
    return client


@pytest.mark.parametrize("mounted", [wsgi, asgi])
def test_a_body_up_to_the_limit_reaches_the_application(mounted: Any) -> None:
    async def test(served: InProcess) -> None:
        client = post(served, [(b"transfer-encoding", b"chunked")], b"12345", b"67890")
        assert (await client.hears())["status"] == 200
        assert (await client.hears())["body"] == b"1234567890"
        await client.running

    during_lifespan(Application(http={"/": mounted}), test, body_bytes=10)


@pytest.mark.parametrize("mounted", [wsgi, asgi])
@pytest.mark.parametrize("headers", [[(b"content-length", b"11")], [(b"transfer-encoding", b"chunked")]])
def test_a_body_that_is_too_large_is_a_413_and_the_only_answer(
    mounted: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    async def test(served: InProcess) -> None:
        client = post(served, headers, b"12345", b"678901")
        assert (await client.hears())["status"] == 413
        await client.running
        assert (await client.hears())["type"] == "http.response.body"
        assert client.sent.empty()

    during_lifespan(Application(http={"/": mounted}), test, body_bytes=10)


async def failing(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] in {"http", "websocket"}
    if scope["query_string"] == b"raise":
        raise ValueError("raised")


@pytest.mark.parametrize("query", [b"raise", b"return"])
def test_a_failed_application_is_a_500_and_named_in_the_log(query: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test(served: InProcess) -> None:
        request = {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": []}
        client = Client(served, request)
        assert (await client.hears())["status"] == 500
        assert (await client.hears())["body"] == b"Internal Server Error\n"
        await client.running
        denied: dict[str, Any] = {"websocket.http.response": {}}
        socket = Client(served, {**request, "type": "websocket", "path": "/ws", "extensions": denied})
        socket.incoming.put_nowait({"type": "websocket.connect"})
        assert (await socket.hears())["status"] == 500
        socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await socket.running

    during_lifespan(Application(http=failing, websocket=failing), test)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert messages == ["the application: GET / failed", "the application: WebSocket /ws failed"]


def test_fast_requests_do_not_wait_behind_slow_ones() -> None:
    going = threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["QUERY_STRING"] == "slow":
            assert going.wait(60)
        return wsgi(environ, start_response)

    def get(served: InProcess, query: bytes) -> Client:
        return Client(served, {"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": []})

    async def test(served: InProcess) -> None:
        slow = [get(served, b"slow") for _ in range(2)]
        fast = [get(served, b"") for _ in range(18)]
        for client in fast:
            assert (await client.hears())["status"] == 200
        assert not any(client.sent.qsize() for client in slow)
        going.set()
        for client in slow:
            assert (await client.hears())["status"] == 200
        for client in slow + fast:
            await client.running

    during_lifespan(Application(http={"/": application}), test, threads=4)


def test_a_path_that_nothing_is_mounted_on_is_a_404() -> None:
    async def test(served: InProcess) -> None:
        client = post(served, [])
        assert (await client.hears())["status"] == 404
        await client.running

    during_lifespan(Application(http={"/elsewhere": wsgi}), test)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_frame_that_does_not_wait_for_the_commit_comes_while_the_consumer_runs(is_async: bool) -> None:
    heard = threading.Event()

    def consume(message: Message) -> None:
        message.reply(text="progress", immediately=True)
        message.reply(text="done")

    def waiting(message: Message) -> None:
        consume(message)
        assert heard.wait(60), "the first frame did not come before the consumer's end"

    async def consume_async(message: Message) -> None:
        consume(message)
        await asyncio.get_running_loop().run_in_executor(None, heard.wait, 60)

    application = Application(websocket=[path("/ws", receive=consume_async if is_async else waiting)])

    async def test(served: InProcess) -> None:
        client = Client(served, {"type": "websocket", "path": "/ws", "headers": []})
        client.incoming.put_nowait({"type": "websocket.connect"})
        assert (await client.hears())["type"] == "websocket.accept"
        client.incoming.put_nowait({"type": "websocket.receive", "text": "x"})
        assert (await client.hears())["text"] == "progress"
        heard.set()
        assert (await client.hears())["text"] == "done"
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await client.running

    during_lifespan(application, test)


def test_a_consumer_hears_of_the_end_of_a_client_that_left_during_the_handshake() -> None:
    began, went_on, ended = threading.Event(), threading.Event(), threading.Event()

    def connect(message: Message) -> None:
        began.set()
        assert went_on.wait(60)
        message.accept()

    def disconnect(message: Message) -> None:
        ended.set()

    application = Application(websocket=[path("/ws", connect=connect, disconnect=disconnect)])

    async def test(served: InProcess) -> None:
        client = Client(served, {"type": "websocket", "path": "/ws", "headers": []})
        client.incoming.put_nowait({"type": "websocket.connect"})
        assert await asyncio.to_thread(began.wait, 10)
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await client.running
        went_on.set()
        assert await asyncio.get_running_loop().run_in_executor(None, ended.wait, 10)

    during_lifespan(application, test)


@pytest.mark.parametrize(
    ("frame", "code"), [({"text": "return"}, 1000), ({"text": "raise"}, 1011), ({"text": "close"}, 4000)]
)
def test_an_asgi_socket_that_its_application_leaves_open_is_closed(frame: dict[str, str], code: int) -> None:
    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        does = (await receive())["text"]
        if does == "raise":
            raise ValueError(does)
        if does == "close":
            await send({"type": "websocket.close", "code": 4000})

    async def test(served: InProcess) -> None:
        client = Client(served, {"type": "websocket", "path": "/ws", "headers": []})
        client.incoming.put_nowait({"type": "websocket.connect"})
        assert (await client.hears())["type"] == "websocket.accept"
        client.incoming.put_nowait({"type": "websocket.receive", **frame})
        assert await client.hears() == {"type": "websocket.close", "code": code, "reason": ""}
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": code})
        await asyncio.wait([client.running])
        assert client.running.exception() is None
        assert client.sent.empty()

    during_lifespan(Application(websocket=application), test)


def test_an_asgi_socket_that_has_ended_is_not_closed_again() -> None:
    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    async def test(served: InProcess) -> None:
        client = Client(served, {"type": "websocket", "path": "/ws", "headers": []})
        client.incoming.put_nowait({"type": "websocket.connect"})
        assert (await client.hears())["type"] == "websocket.accept"
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1005})
        await client.running
        assert client.sent.empty()

    during_lifespan(Application(websocket=application), test)


def test_limits_come_from_the_environment_that_start_makes() -> None:
    assert limits_of({}) == Limits()
    environment = {"ASGICTL_MAX_BODY_BYTES": "5", "ASGICTL_MAX_MESSAGE_BYTES": "6"}
    environment["ASGICTL_ALLOWED_ORIGINS"] = "'https://*.example.com' http://b"
    origins = ("https://*.example.com", "http://b")
    assert limits_of(environment) == Limits(body_bytes=5, message_bytes=6, allowed_origins=origins)
    assert [limits_of({"ASGICTL_DRAIN_SECONDS": given}).drain_seconds for given in ("1", "600")] == [1, 30]


def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise ValueError("as it is meant to")


@pytest.mark.parametrize(
    ("mounted", "status", "errors", "has_run"), [(wsgi, 200, 0, True), (asgi, 200, 0, False), (broken, 500, 1, True)]
)
def test_a_request_is_counted_with_its_status_and_times(mounted: Any, status: int, errors: int, has_run: bool) -> None:
    async def test(served: InProcess) -> None:
        client = post(served, [(b"content-length", b"1")], b"1")
        assert served._report().http <= 1
        await client.running
        await asyncio.to_thread(until, lambda: served._report().events, "the thread has counted it")
        figures = served._report()
        assert (figures.requests, figures.http, figures.running) == ({status: 1}, 0, 0)
        assert (figures.events, figures.errors) == (1, errors)
        assert sum(figures.request_seconds[:-1]) == 1
        assert sum(figures.request_run_seconds[:-1]) == has_run
        assert (figures.busy_seconds > 0) == has_run

    during_lifespan(Application(http={"/": mounted}), test)


@pytest.mark.parametrize(("length", "status"), [(b"1", 404), (b"11", 413)])
def test_what_is_answered_without_the_application_is_counted_too(length: bytes, status: int) -> None:
    async def test(served: InProcess) -> None:
        client = post(served, [(b"content-length", length)])
        await client.running
        assert (await client.hears())["status"] == status
        assert served._report().requests == {status: 1}

    during_lifespan(Application(http={"/elsewhere": wsgi}), test, body_bytes=10)
