"""Redis goes away without a word, before 200 sockets and requests: what is served of each kind, and its clients."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

from asgictl import Application, BackgroundMessage, Channel, Message, path
from benchmarks import numbered

NOTES = "LINKS_NOTES"  # the file of what has run, a line each
PAUSE = "LINKS_PAUSE_SECONDS"  # that each handler takes
CLIENT_SECONDS = 90.0  # more than any deadline that a request has


def pause_seconds() -> float:
    return float(os.environ.get(PAUSE, "0"))


def note(what: str, body: bytes) -> None:
    if name := os.environ.get(NOTES):
        with Path(name).open("ab", buffering=0) as notes:
            notes.write(b"%b %b\n" % (what.encode(), body))


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """POST notes its body, and sends a job that notes it too."""
    time.sleep(pause_seconds())
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
        note("posted", body)
        Channel("jobs").send({"body": body})
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def job(message: BackgroundMessage) -> None:
    time.sleep(pause_seconds())
    note("job", message.content["body"])


def count(message: Message) -> None:
    time.sleep(pause_seconds())
    numbered.count(message)


async def count_async(message: Message) -> None:
    await asyncio.sleep(pause_seconds())
    numbered.count(message)


ROUTES = [
    path("/numbers", connect=numbered.accept, receive=count),
    path("/async", connect=numbered.accept, receive=count_async),
]
PATHS = ("/numbers", "/async")


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same as ASGI: requests, of which POST notes its body, and sockets that count by themselves."""
    if scope["type"] == "websocket":
        return await numbered.asgi(scope, receive, send)
    body = b""
    while scope["type"] == "http" and (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await asyncio.sleep(pause_seconds())
    if scope["type"] == "http":
        if scope["method"] == "POST":
            note("posted", body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
    return None


app = Application(http=site, websocket=ROUTES, background={"jobs": job})
mixed = Application(http=asgi, websocket=ROUTES)
streams = Application(http=asgi, websocket=asgi)


class Requests:
    """Clients that each send a GET and a numbered POST in turn, in threads, from `with` to its end.

    answers: how many by method and status; 0 for one that was cut off or never answered.
    """

    def __init__(self, port: int, *, clients: int = 4, pace_seconds: float = 0.05) -> None:
        self._port = port
        self._pace_seconds = pace_seconds
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        self.answers: Counter[tuple[str, int]] = Counter()
        self.posted: dict[str, int] = {}  # status by body
        self.failures: list[str] = []
        self.began = [0.0] * clients  # when each client sent what was answered last, by time.monotonic()
        self.longest_seconds = 0.0

    def __enter__(self) -> "Requests":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        print(f"answers {dict(self.answers)}, longest {self.longest_seconds:.2f} s; {self.failures[:3]}")

    @property
    def statuses(self) -> set[int]:
        return {status for _, status in self.answers}

    def _ask(self, client: int) -> None:
        number = 0
        while not self._stopping.is_set():
            number, began = number + 1, time.monotonic()
            body = f"{client}-{number}"
            self._note("GET", self._send("GET", None))
            self.posted[body] = 0
            self.posted[body] = status = self._send("POST", body)
            self._note("POST", status)
            self.began[client] = began
            time.sleep(self._pace_seconds)

    def _note(self, method: str, status: int) -> None:
        self.answers[method, status] += 1

    def _send(self, method: str, body: str | None) -> int:
        """Send on a connection of its own."""
        connection, began = HTTPConnection("127.0.0.1", self._port, timeout=CLIENT_SECONDS), time.monotonic()
        try:
            connection.request(method, "/", body)
            response = connection.getresponse()
            response.read()
            return response.status
        except (OSError, HTTPException) as error:
            self.failures.append(f"{method} {body}: {error!r} after {time.monotonic() - began:.1f} s")
            return 0
        finally:
            connection.close()
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)

    def wrong(self, notes: Path, kinds: tuple[str, ...] = ("posted",)) -> list[str]:
        """Return which posts have run twice, and what of these kinds has not run of posts that were answered 200."""
        ran = Counter(notes.read_text().splitlines() if notes.exists() else ())
        done = [body for body, status in self.posted.items() if status == 200]
        wrong = [f"{what} ran {times} times" for what, times in ran.items() if what.startswith("posted") and times > 1]
        return wrong + [f"{kind} {body} never ran" for body in done for kind in kinds if not ran[f"{kind} {body}"]]
