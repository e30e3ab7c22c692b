"""Redis goes away without a word, before 200 sockets and requests: what is served of each kind, and its clients."""

import argparse
import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from asgictl import Application, BackgroundMessage, Channel, Message, path
from asgictl.loadtests.servers import Side, SideError, serving
from benchmarks import applications, layers, numbered
from benchmarks.numbered import Load
from benchmarks.proxy import Proxy
from benchmarks.verdicts import Reading, noticed

NOTES = "LINKS_NOTES"  # the file of what has run, a line each
PAUSE = "LINKS_PAUSE_SECONDS"  # that each handler takes
LARGE_BYTES = 100_000
CLIENT_SECONDS = 90.0  # more than any deadline that a request has
COMMAND = "asgictl start benchmarks.links:{target} --workers 3 --threads 2 --redis {redis} --bind {bind} -d"
SOCKETS = 200
CLIENTS = 20
SETTLE_SECONDS = 3.0
BACK_SECONDS = 6.0  # after a fault
AGAIN_SECONDS = 30.0  # in which whatever comes back has come
STALL_SECONDS = 20.0
AWAY_SECONDS = 60.0


def pause_seconds() -> float:
    return float(os.environ.get(PAUSE, "0"))


def note(what: str, body: bytes) -> None:
    """Note the first word of a body."""
    if name := os.environ.get(NOTES):
        with Path(name).open("ab", buffering=0) as notes:
            notes.write(b"%b %b\n" % (what.encode(), body.split()[0]))


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """POST notes its body, and sends a job that notes it too."""
    time.sleep(pause_seconds())
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
        note("posted", body)
        Channel("jobs").send({"body": body[:100]})
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


def left(message: Message) -> None:
    note("left", message.path.encode())


ROUTES = [
    path("/numbers", connect=numbered.accept, receive=count),
    path("/async", connect=numbered.accept, receive=count_async),
    path("/leaving", receive=applications.say_back, disconnect=left),
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
        self.ended = [0.0] * clients  # and when it was answered
        self.longest_seconds = 0.0

    def __enter__(self) -> "Requests":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
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
            number += 1
            body = f"{client}-{number}"
            self._send(client, "GET", None)
            self.posted[body] = 0
            # Every fifth is too large for one event.
            self.posted[body] = self._send(client, "POST", body + " " * (0 if number % 5 else LARGE_BYTES))
            time.sleep(self._pace_seconds)

    def _send(self, client: int, method: str, body: str | None) -> int:
        """Send on a connection of its own, and note the answer; returns its status."""
        connection, began, status = HTTPConnection("127.0.0.1", self._port, timeout=CLIENT_SECONDS), time.monotonic(), 0
        try:
            connection.request(method, "/", body)
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, HTTPException) as error:
            self.failures.append(f"{method} {(body or '').strip()}: {error!r} after {time.monotonic() - began:.1f} s")
        finally:
            connection.close()
        self.answers[method, status] += 1
        self.began[client], self.ended[client] = began, time.monotonic()
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        return status

    def wrong(self, notes: Path, kinds: tuple[str, ...] = ("posted",)) -> list[str]:
        """Return which posts have run twice, and what of these kinds has not run of posts that were answered 200."""
        ran = Counter(notes.read_text().splitlines() if notes.exists() else ())
        done = [body for body, status in self.posted.items() if status == 200]
        wrong = [f"{what} ran {times} times" for what, times in ran.items() if what.startswith("posted") and times > 1]
        return wrong + [f"{kind} {body} never ran" for body in done for kind in kinds if not ran[f"{kind} {body}"]]


def links(_arguments: argparse.Namespace) -> Iterator[Reading]:
    for target in ("app", "streams"):
        for group in ("interface", "worker", "controller", ""):
            name = f"{'ASGI, ' if target == 'streams' else ''}{group or 'all'} frozen"
            # docs/explanation/guarantees.md: nobody knows whether a POST has run whose connection to Redis is lost.
            yield from beside(name, target, partial(freeze, group), BACK_SECONDS, allowed={("POST", 502)})
    yield from beside("stalled 20 s", "app", stall, STALL_SECONDS + BACK_SECONDS)
    # guarantees.md: requests wait for 60 s, then 503, or 504 where Redis had taken them before; sockets outlive it.
    given_up = {(method, status) for method in ("GET", "POST") for status in (503, 504)}
    yield from beside("away 60 s", "app", leave, AWAY_SECONDS + BACK_SECONDS, allowed=given_up)


def beside(
    name: str,
    target: str,
    fault: Callable[[Proxy], None],
    stall_seconds: float,
    allowed: Collection[tuple[str, int]] = (),
) -> Iterator[Reading]:
    """Count what clients notice of a fault. allowed: methods and statuses that requests may have beside 200."""
    paths = PATHS if target == "app" else PATHS[:1]
    with layers.redis_url() as url, Proxy(url) as proxy, TemporaryDirectory() as directory:
        notes = Path(directory) / "notes"
        side = Side(name, COMMAND.replace("{target}", target).replace("{redis}", proxy.url))
        with patch.dict(os.environ, {NOTES: str(notes)}), serving(side) as server:
            load = Load(
                server.url, sockets=SOCKETS, pace_seconds=1, listeners=2 if target == "app" else 0, http=False,
                paths=paths, answer_seconds=CLIENT_SECONDS,
            )  # fmt: skip
            with load, Requests(server.port, clients=CLIENTS, pace_seconds=0.2) as requests:
                time.sleep(SETTLE_SECONDS)
                fault(proxy)
                time.sleep(SETTLE_SECONDS)
                went_on(load, requests)
        failed = sum(count for answer, count in requests.answers.items() if answer[1] != 200 and answer not in allowed)
        wrong = requests.wrong(notes, ("posted", "job") if target == "app" else ("posted",))
        counts = {
            "closed": load.closed.total(),
            **{kind: load.kinds[kind] for kind in ("lost", "repeated", "reordered")},
        }
        counts |= {"requests failed": failed, "requests wrong": len(wrong)}
        longest = max(load.longest_stall_seconds, requests.longest_seconds)
        yield from noticed(name, counts, load.wrong + wrong + requests.failures, longest, stall_seconds)


def went_on(load: Load, requests: Requests) -> None:
    """Wait until each client has been answered what it sent from now on, or will not be."""
    now = time.monotonic()
    while min([*load.began(), *requests.began]) < now and time.monotonic() < now + AGAIN_SECONDS and not load.wrong:
        time.sleep(0.1)


def freeze(group: str, proxy: Proxy) -> None:
    if not proxy.freeze(group):
        raise SideError(f"no connection of {group} is there to freeze")


def stall(proxy: Proxy) -> None:
    proxy.stall()
    time.sleep(STALL_SECONDS)
    proxy.go()


def leave(proxy: Proxy) -> None:
    proxy.leave()
    time.sleep(AWAY_SECONDS)
    proxy.come_back()
