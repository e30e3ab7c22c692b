"""The demo application: the same code in both modes. Its paths and replies are fixed; other tools rely on them."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from asgictl import Message
from asgictl.app import runtime
from asgictl.app.application import Application, path
from asgictl.app.sending import Group

PAGE = Path(__file__).with_name("page.html").read_bytes()
MOST_MILLISECONDS = 60_000
Answer = tuple[str, str, bytes]  # status, content type, body


def hello(_environ: dict[str, Any]) -> Answer:
    return "200 OK", "text/plain", b"Hello, world!"


def page(_environ: dict[str, Any]) -> Answer:
    return "200 OK", "text/html; charset=utf-8", PAGE


def echo(environ: dict[str, Any]) -> Answer:
    content_type = environ.get("CONTENT_TYPE") or "application/octet-stream"
    return "200 OK", content_type, environ["wsgi.input"].read()


def sleep(environ: dict[str, Any]) -> Answer:
    """Wait in blocking code, as for a database."""
    time.sleep(seconds(environ["QUERY_STRING"]))
    return "200 OK", "text/plain", b"slept"


def burn(environ: dict[str, Any]) -> Answer:
    """Use the processor for that long, however many share it."""
    until = time.thread_time() + seconds(environ["QUERY_STRING"])
    while time.thread_time() < until:
        pass
    return "200 OK", "text/plain", b"burnt"


def where(_environ: dict[str, Any]) -> Answer:
    return "200 OK", "application/json", json.dumps(here()).encode()


VIEWS: dict[tuple[str, str], Callable[[dict[str, Any]], Answer]] = {
    ("GET", "/"): page,
    ("GET", "/hello"): hello,
    ("GET", "/sync"): sleep,
    ("GET", "/cpu"): burn,
    ("GET", "/where"): where,
    ("POST", "/echo"): echo,
}


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI part."""
    method = environ["REQUEST_METHOD"].replace("HEAD", "GET")
    view = VIEWS.get((method, environ["PATH_INFO"]))
    if view is None:
        known = any(path == environ["PATH_INFO"] for _, path in VIEWS)
        status = "405 Method Not Allowed" if known else "404 Not Found"
        answer: Answer = status, "text/plain", status.encode()
    else:
        try:
            answer = view(environ)
        except ValueError as error:
            answer = "400 Bad Request", "text/plain", str(error).encode()
    status, content_type, body = answer
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


async def async_sleep(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """The ASGI part: wait in a coroutine."""
    try:
        await asyncio.sleep(seconds(scope["query_string"].decode("latin-1")))
        status, body = 200, b"slept"
    except ValueError as error:
        status, body = 400, str(error).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def seconds(query: str) -> float:
    """Return ?ms=N in seconds; raises ValueError for what is no sensible number."""
    text = parse_qs(query).get("ms", ["0"])[0]
    if not text.isdecimal() or int(text) > MOST_MILLISECONDS:
        raise ValueError(f"ms is a whole number of milliseconds, at most {MOST_MILLISECONDS}")
    return int(text) / 1000


def here() -> dict[str, Any]:
    """Which process this is."""
    process = runtime.current()
    return {"mode": process.mode, "pid": process.pid, "worker": process.worker}


def accept(message: Message) -> None:
    message.accept()


def say_back(message: Message) -> None:
    message.reply(text=message.text, data=message.data)


def count(message: Message) -> None:
    message.state["messages"] = message.state.get("messages", 0) + 1
    message.reply(text=str(message.state["messages"]))


def say_where(message: Message) -> None:
    message.reply(text=str(here()["pid"]))


def join_chat(message: Message) -> None:
    message.accept()
    message.join("chat." + message.params["room"])


def join_page(message: Message) -> None:
    message.accept()
    message.join("page." + message.params["room"])


def say(message: Message) -> None:
    """To the whole room: unchanged for chat sockets, with the process that handled it for the page's."""
    room = message.params["room"]
    Group("chat." + room).send(text=message.text, data=message.data)
    if message.text is not None:
        Group("page." + room).send(text=json.dumps({"text": message.text, **here()}))


app = Application(
    http={"/": site, "/async": async_sleep},
    websocket=[
        path("/ws/echo", connect=accept, receive=say_back),
        path("/ws/count", connect=accept, receive=count),
        path("/ws/where", connect=accept, receive=say_where),
        path("/ws/chat/{room}", connect=join_chat, receive=say),
        path("/ws/room/{room}", connect=join_page, receive=say),
    ],
)
