"""Locust users, for `asgictl compare` and for locust itself.

locust -f loadtests/users.py,loadtests/shapes.py --class-picker --host http://127.0.0.1:8000
locust -f loadtests/users.py Hello --headless --users 50 --rate 200 --run-time 60s --host http://127.0.0.1:8000

Without --rate each user sends its next request once the last is answered. With it the users keep to a schedule, and
each answer's time counts from when its request should have been sent: a slow server cannot hide its queue.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import random
from typing import Any

import websocket
from gevent import sleep
from locust import FastHttpUser, User, events, task

ANSWER_SECONDS = 10.0
RECONNECT_SECONDS = 0.05
LISTEN_SECONDS = 2.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust's are
def _options(parser: Any) -> None:
    for name, kind, default, text in (
        ("--path", str, "/hello", "What HTTP users ask for"),
        ("--slow-path", str, "/sync?ms=200", "What one request in 20 of Mixed asks for"),
        ("--ws-path", str, "/ws/echo", "Where WebSocket users connect"),
        ("--rate", float, 0, "Requests or messages a second, all users together"),
    ):
        variable = "ASGICTL_LOAD_" + name[2:].replace("-", "_").upper()
        parser.add_argument(name, type=kind, default=default, help=text, env_var=variable)


class UnsentError(Exception):
    """A start was due, and its user was still waiting when the run ended."""


class FixedRate:
    """Mixed into a User: keeps to --rate. `intended` is when the current task should have begun, None without one.

    environment.missed_starts counts those of all users whose user was still busy when they were due. What was due and
    never sent is reported as "unsent", with the time that was left until environment.measured_until, else until now.
    """

    environment: Any
    intended: float | None = None

    def on_start(self) -> None:
        if isinstance(self, FastHttpUser):
            self.client.request_event = self  # whose fire() knows the intended start
        self._interval = self.interval(self.environment.parsed_options.rate)
        if self._interval:
            sleep(self.delay(self._interval))
            self.intended = time.time()
            self._reported = self.intended - self._interval

    def interval(self, rate: float) -> float:
        """Return the seconds from one start of this user to the next, 0 for no schedule."""
        users: int = self.environment.runner.target_user_count
        return users / rate if rate else 0.0

    def delay(self, interval: float) -> float:
        """Return the seconds until this user's first start: not all are in step."""
        return random() * interval

    def wait_time(self) -> float:
        """Return the seconds until the next task is due: locust asks after each."""
        if self.intended is None:
            return 0.0
        self._reported = self.intended  # by whom ever
        self.intended += self._interval
        remaining = self.intended - time.time()
        self.environment.missed_starts = getattr(self.environment, "missed_starts", 0) + (remaining < 0)
        return max(0.0, remaining)

    def on_stop(self) -> None:
        if self.intended is None:
            return
        end = getattr(self.environment, "measured_until", time.time())
        while (due := self._reported + self._interval) < end:
            self.intended = self._reported = due
            self.environment.events.request.fire(
                request_type="", name="unsent", start_time=due, response_time=(end - due) * 1e3, response_length=0,
                exception=UnsentError("was due and never sent"), context={}, url="",
            )  # fmt: skip

    def fire(self, **measured: Any) -> None:
        """Report to locust; response_time in milliseconds, counted from the intended start."""
        if self.intended is not None:
            self._reported = self.intended
            if measured["start_time"] > self.intended:
                measured["response_time"] += (measured["start_time"] - self.intended) * 1e3
                measured["start_time"] = self.intended
        self.environment.events.request.fire(**measured)


class Hello(FixedRate, FastHttpUser):
    """Gets --path."""

    connection_timeout = ANSWER_SECONDS
    network_timeout: float = ANSWER_SECONDS

    @task
    def get(self) -> None:
        path, name = self.pick()
        self.client.get(path, name=name)

    def pick(self) -> tuple[str, str]:
        """Return what is asked for next, and what it is called."""
        return self.environment.parsed_options.path, "request"


class Noted(Hello):
    """Gets --path with an ?id= that nobody else has: in the demo's file of notes it stands as often as it ran."""

    started: Iterator[int] = itertools.count()
    number: int = 0

    def on_start(self) -> None:
        self.me: int = next(Noted.started)
        super().on_start()

    def pick(self) -> tuple[str, str]:
        self.number += 1
        return f"{super().pick()[0]}?id=request-{self.me}-{self.number}", "request"


class Mixed(Hello):
    """Gets --path, but one time in 20 --slow-path."""

    def pick(self) -> tuple[str, str]:
        options = self.environment.parsed_options
        return (options.slow_path, "slow") if random() < 0.05 else (options.path, "fast")


class DjangoWriter(Hello):
    """Logs in as load (manage.py prepare), and sends the form at --path again and again; a redirect is its answer."""

    def on_start(self) -> None:
        login = "/accounts/login/"
        self.client.get(login, name="connect")
        self.client.post(login, {"username": "load", "password": "load"}, name="connect", headers=self.token())
        super().on_start()

    def token(self) -> dict[str, str]:
        """Return the header that Django takes for a form's own."""
        cookies = {each.name: str(each.value) for each in self.client.cookiejar}
        return {"X-CSRFToken": cookies.get("csrftoken", "")}

    @task
    def get(self) -> None:
        path, name = self.pick()
        self.client.post(path, {"title": "as written"}, name=name, headers=self.token(), allow_redirects=False)


class Closed(Exception):
    """The server ended the WebSocket."""


class Socket:
    """A WebSocket. Its methods raise Closed, WebSocketException or OSError once it has ended, or after `seconds`."""

    def __init__(self, url: str) -> None:
        try:
            self._socket = websocket.create_connection(url, ANSWER_SECONDS)
        except websocket.WebSocketBadStatusException as error:
            raise Closed(f"handshake answered {error.status_code}") from error
        self.close: Callable[..., None] = self._socket.close

    def drop(self) -> None:
        """End it without a word, as a network does."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    def send(self, text: str) -> None:
        try:
            self._socket.send(text)
        except OSError:
            while True:  # the server has closed: with which code may still be there to read
                self.receive()

    def receive(self, seconds: float = ANSWER_SECONDS) -> str:
        self._socket.settimeout(seconds)
        opcode, data = self._socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(f"closed with {int.from_bytes(data[:2], 'big') or 1005}")
        return str(data, errors="replace")


class SocketUser(FixedRate, User):
    """Connects to --ws-path, again whenever it is closed. Reports "connect", its messages, and a "close" as failed."""

    abstract = True
    socket: Socket | None = None
    url: str = ""

    def on_start(self) -> None:
        self.url = self.address()
        self.connect()
        super().on_start()

    def address(self) -> str:
        """Return where to connect."""
        return str(self.host).replace("http", "ws", 1) + str(self.environment.parsed_options.ws_path)

    def on_stop(self) -> None:
        super().on_stop()
        if self.socket:
            with self.reporting("close"):
                self.socket.close()

    @contextmanager
    def reporting(self, name: str) -> Iterator[dict[str, Any]]:
        """Report what happens within; it puts in what is known only then. A socket that ended is left behind."""
        measured: dict[str, Any] = {"start_time": time.time(), "exception": None}
        began = time.perf_counter()
        try:
            yield measured
        except (Closed, OSError, websocket.WebSocketException) as error:  # the server's doing
            measured["exception"] = error
            if not isinstance(error, websocket.WebSocketTimeoutException):
                self.socket = None
                measured["name"] = name if name == "connect" else "close"
        measured = {"name": name, "response_time": (time.perf_counter() - began) * 1e3, **measured}
        if measured.pop("quiet", False) and measured["exception"] is None:
            return
        self.fire(request_type="WS", response_length=0, context={}, url=self.url, **measured)

    def connect(self) -> None:
        with self.reporting("connect"):
            self.socket = Socket(self.url)
            self.connected()
        if self.socket is None:
            sleep(RECONNECT_SECONDS)

    def connected(self) -> None:
        """Forget what belonged to the last socket."""

    @task
    def act(self) -> None:
        if self.socket is None:
            self.connect()
        if self.socket is not None:
            self.talk(self.socket)

    def talk(self, ws: Socket) -> None:
        raise NotImplementedError


class Echo(SocketUser):
    """Sends 1, 2, 3 ... and expects each back: anything lost, repeated or out of order is a failure."""

    number: int = 0
    prefix = ""

    def talk(self, ws: Socket) -> None:
        with self.reporting("message") as measured:
            self.number += 1
            ws.send(said := f"{self.prefix}{self.number}")
            if (heard := ws.receive()) != said:
                measured["exception"] = ValueError(f"sent {said}, heard {heard[:40]}")


class NotedEcho(Echo):
    """The same, with numbers that nobody else has, as Noted."""

    started: Iterator[int] = itertools.count()

    def on_start(self) -> None:
        self.prefix: str = f"message-{next(NotedEcho.started)}-"
        super().on_start()


class Returning(SocketUser):
    """Drops its socket when all others do, and connects again; a "return" lasts until a first message comes back."""

    def delay(self, interval: float) -> float:
        return interval - time.time() % interval

    def talk(self, ws: Socket) -> None:
        ws.drop()
        with self.reporting("return"):
            self.socket: Socket | None = Socket(self.url)
            self.socket.send("again")
            self.socket.receive()


class Idle(SocketUser):
    """Holds a socket and says nothing."""

    def interval(self, rate: float) -> float:
        return 0.0

    def talk(self, ws: Socket) -> None:
        with self.reporting("idle") as measured:
            measured["quiet"] = True
            try:
                ws.receive(LISTEN_SECONDS)
            except websocket.WebSocketTimeoutException:
                return


class Listener(Idle):
    """Hears what Talker says in a chat room, in order: each "delivery" is timed from when it was to be sent."""

    heard: int = 0

    def connected(self) -> None:
        self.heard = 0

    def talk(self, ws: Socket) -> None:
        with self.reporting("delivery") as measured:
            measured["quiet"] = True
            try:
                number, sent = ws.receive(LISTEN_SECONDS).split()
            except websocket.WebSocketTimeoutException:
                return
            measured |= {"quiet": False, "start_time": float(sent), "response_time": (time.time() - float(sent)) * 1e3}
            if self.heard and int(number) != self.heard + 1:
                measured["exception"] = ValueError(f"heard {number} after {self.heard}")
            self.heard = int(number)


class Talker(SocketUser):
    """Says its number and the time to a chat room, --rate times a second (else once)."""

    fixed_count = 1
    number: int = 0

    def interval(self, rate: float) -> float:
        return 1 / (rate or 1)

    def talk(self, ws: Socket) -> None:
        with self.reporting("said") as measured:
            measured["quiet"] = True
            self.number += 1
            ws.send(f"{self.number} {self.intended}")
            ws.receive()


class Room(SocketUser):
    """Is one of four in a chat room of examples/django_site: says something, and hears it, as the others do."""

    entered: Iterator[int] = itertools.count()
    number: int = 0

    def on_start(self) -> None:
        self.me: int = next(Room.entered)
        super().on_start()

    def address(self) -> str:
        return super().address() + f"room-{self.me // 4}/"

    def talk(self, ws: Socket) -> None:
        with self.reporting("message"):
            self.number += 1
            said = f"{self.me} {self.number}"
            ws.send(json.dumps({"message": said}))
            while json.loads(ws.receive())["message"] != said:
                pass
