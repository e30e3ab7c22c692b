"""The demo application: the same code in both modes. Its paths and replies are fixed; other tools rely on them."""

import asyncio
import ctypes
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from asgictl import Message
from asgictl.app import runtime
from asgictl.app.application import Application, path
from asgictl.app.sending import Group

PAGE = Path(__file__).with_name("page.html").read_bytes()
MOST_MILLISECONDS = 60_000
NOTES = "DEMO_NOTES"  # names a file
STATUS_SECONDS = 3.0  # for which the controller may take to answer
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


def hold(environ: dict[str, Any]) -> Answer:
    """Wait, and let no other thread of the process run: what a C extension does that keeps the GIL."""
    ctypes.PyDLL(None).poll(None, 0, round(seconds(environ["QUERY_STRING"]) * 1e3))
    return "200 OK", "text/plain", b"held"


def note(environ: dict[str, Any]) -> Answer:
    """Write ?id= down."""
    write_down(parse_qs(environ["QUERY_STRING"]).get("id", [""])[0])
    return "200 OK", "text/plain", b"noted"


def write_down(text: str) -> None:
    """Append a line to a file that all processes share, where there is one: what ran twice stands there twice."""
    if text and (place := os.environ.get(NOTES)):
        with open(place, "a") as notes:
            notes.write(text + "\n")


def where(_environ: dict[str, Any]) -> Answer:
    return "200 OK", "application/json", json.dumps(here()).encode()


class Admin(HTTPConnection):
    """A connection to the controller of this instance."""

    def connect(self) -> None:
        self.sock: socket.socket = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(STATUS_SECONDS)
        self.sock.connect(os.path.join(os.environ["ASGICTL_RUN_DIR"], "admin.sock"))


def processes(_environ: dict[str, Any]) -> Answer:
    """Show which processes run the application, what they run, and how the last in each slot died."""
    admin = Admin("localhost")
    try:
        admin.request("GET", "/status")
        found = json.load(admin.getresponse())["processes"]
    except (KeyError, OSError, HTTPException, ValueError):  # no controller here, or it is about to be replaced
        return "503 Service Unavailable", "text/plain", b"no controller"
    finally:
        admin.close()
    told = ("process", "pid", "ready", "state", "release", "last_exit")
    shown = [{key: each[key] for key in told} for each in found if each["role"] in {"worker", "server"}]
    return "200 OK", "application/json", json.dumps(shown).encode()


VIEWS: dict[tuple[str, str], Callable[[dict[str, Any]], Answer]] = {
    ("GET", "/"): page,
    ("GET", "/hello"): hello,
    ("GET", "/sync"): sleep,
    ("GET", "/cpu"): burn,
    ("GET", "/hold"): hold,
    ("GET", "/note"): note,
    ("GET", "/where"): where,
    ("GET", "/processes"): processes,
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


def note_and_say_back(message: Message) -> None:
    write_down(message.text or "")
    say_back(message)


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


async def plain(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The hello and the echo of it in bare ASGI, which other servers run too."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"13")]})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.receive":
                await send({"type": "websocket.send", **{key: event.get(key) for key in ("text", "bytes")}})


app: Application = Application(
    http={"/": site, "/async": async_sleep},
    websocket=[
        path("/ws/echo", connect=accept, receive=say_back),
        path("/ws/note", connect=accept, receive=note_and_say_back),
        path("/ws/count", connect=accept, receive=count),
        path("/ws/where", connect=accept, receive=say_where),
        path("/ws/chat/{room}", connect=join_chat, receive=say),
        path("/ws/room/{room}", connect=join_page, receive=say),
    ],
)
