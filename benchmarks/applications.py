"""The applications that benchmarks serve: each as small as its kind allows, so that what carries it is measured."""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from a2wsgi import WSGIMiddleware

from asgictl import Application, Group, Message, path
from asgictl.app import runtime
from benchmarks import layers

HELLO = b"Hello, world!"
PAUSE_SECONDS = {"/sleep": 0.005, "/slow": 5}
EVENTS = 200
PIECE_BYTES = 1 << 16
GIBIBYTE = 1 << 30
requests = itertools.count()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Plain WSGI; /sleep waits 5 ms, as for a database, and /slow 5 s, as for a report."""
    if pause := PAUSE_SECONDS.get(environ["PATH_INFO"]):
        time.sleep(pause)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [HELLO]


def bodies(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI of large bodies, in pieces of 64 KiB: GET /gibibyte is answered with one, POST with how much came."""
    if environ["PATH_INFO"] == "/gibibyte":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(GIBIBYTE))])
        return repeat(bytes(PIECE_BYTES), GIBIBYTE // PIECE_BYTES)
    read = environ["wsgi.input"].read
    count = b"%d" % sum(map(len, iter(lambda: read(PIECE_BYTES), b"")))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(count)))])
    return [count]


def slower_inprocess(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI that computes for 25 ms, in-process for 20% longer: much, so that the way through Redis does not matter."""
    until = time.thread_time() + (0.025 if runtime.current().mode == "split" else 0.030)
    while time.thread_time() < until:
        pass
    return wsgi(environ, start_response)


def failing_inprocess(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI that waits for 20 ms; in-process 4 of 5 requests are answered with 503 at once."""
    if runtime.current().mode != "split" and next(requests) % 5:
        start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return []
    time.sleep(0.02)
    return wsgi(environ, start_response)


def stalling(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI that stands still for the first second of every ten."""
    time.sleep(max(0.0, 1 - time.time() % 10))
    return wsgi(environ, start_response)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Plain ASGI: hello by HTTP, echo by WebSocket; /poll waits 10 s, /events sends the time each 20 ms."""
    if scope["type"] == "http" and scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(EVENTS):
            event = b"data: %.6f\n\n" % time.time()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "http":
        if scope["path"] == "/poll":
            await asyncio.sleep(10)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HELLO})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


wsgi_on_asgi = WSGIMiddleware(wsgi)  # type: ignore[arg-type]  # its types are narrower than PEP 3333


def accept(message: Message) -> None:
    message.accept()


def say_back(message: Message) -> None:
    message.reply(text=message.text)


def join(message: Message) -> None:
    message.accept()
    message.join("all")


def say_to_all(message: Message) -> None:
    Group("all").send(text=message.text)


broadcast = Application(http=wsgi, websocket=[path("/broadcast", connect=join, receive=say_to_all)])
members: set[Callable[..., Any]] = set()


async def broadcast_loop(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same as plain ASGI in one process: a loop over its sockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        members.add(send)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                for each in list(members):
                    await each({"type": "websocket.send", "text": message["text"]})
        finally:
            members.discard(send)


echo = Application(http=wsgi, websocket=[path("/ws", connect=accept, receive=say_back)])


async def say_back_async(message: Message) -> None:
    message.reply(text=message.text)


echo_async = Application(http=wsgi, websocket=[path("/ws", connect=accept, receive=say_back_async)])


def django(kind: str) -> Any:
    """Return a Django project of one view, as its `kind` of application: wsgi, asgi, channels, broadcast_LAYER."""
    from django.conf import settings

    if not settings.configured:
        middleware = ["django.middleware.common.CommonMiddleware", "django.middleware.security.SecurityMiddleware"]
        settings.configure(
            ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY=os.urandom(16).hex(), MIDDLEWARE=middleware
        )
    if kind == "wsgi":
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()
    from django.core.asgi import get_asgi_application

    if kind == "asgi":
        return get_asgi_application()
    get_asgi_application()
    if kind.startswith("broadcast_"):
        return layers.broadcast(*kind.split("_")[1:])
    from channels.generic.websocket import WebsocketConsumer

    class Echo(WebsocketConsumer):  # type: ignore[misc]  # Channels has no types
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data)

    return Echo.as_asgi()


def hello_view(_request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse(HELLO, content_type="text/plain")


class _Patterns(list[Any]):
    """Django asks for urlpatterns when the first request comes, which is when this module may import Django."""

    def __iter__(self) -> Any:
        from django.urls import path as django_path

        return iter([django_path("", hello_view)])


urlpatterns = _Patterns([None])


def fastapi() -> Any:
    """Return a FastAPI application of one coroutine."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    application = FastAPI()

    @application.get("/", response_class=PlainTextResponse)
    async def hello() -> str:
        return HELLO.decode()

    return application


def __getattr__(name: str) -> Any:
    if name == "fastapi_hello":
        return fastapi()
    if name.startswith("django_"):
        return django(name.removeprefix("django_"))
    raise AttributeError(name)
