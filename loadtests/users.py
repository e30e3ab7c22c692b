"""Locust users, for `asgictl compare` and for locust itself.

locust -f loadtests/users.py,loadtests/shapes.py --class-picker --host http://127.0.0.1:8000
locust -f loadtests/users.py Hello --headless --users 50 --rate 200 --run-time 60s --host http://127.0.0.1:8000

Without --rate each user sends its next request once the last is answered. With it the users keep to a schedule, and
each answer's time counts from when its request should have been sent: a slow server cannot hide its queue.
"""

import time
from collections.abc import Iterator
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


class FixedRate:
    """Mixed into a User: keeps to --rate. `intended` is when the current task should have begun, None without one.

    environment.missed_starts counts those of all users whose user was still busy when they were due.
    """

    environment: Any
    intended: float | None = None

    def on_start(self) -> None:
        self._interval = self.interval(self.environment.parsed_options.rate)
        if self._interval:
            sleep(random() * self._interval)  # not all in step
            self.intended = time.time()

    def interval(self, rate: float) -> float:
        """Return the seconds from one start of this user to the next, 0 for no schedule."""
        users: int = self.environment.runner.target_user_count
        return users / rate if rate else 0.0

    def wait_time(self) -> float:
        """Return the seconds until the next task is due: locust asks after each."""
        if self.intended is None:
            return 0.0
        self.intended += self._interval
        remaining = self.intended - time.time()
        self._miss(remaining < 0)
        return max(0.0, remaining)

    def on_stop(self) -> None:
        if self.intended is not None:
            self._miss(max(0, int((time.time() - self.intended) / self._interval)))

    def _miss(self, starts: int) -> None:
        self.environment.missed_starts = getattr(self.environment, "missed_starts", 0) + starts

    def fire(self, **measured: Any) -> None:
        """Report to locust; response_time in milliseconds, counted from the intended start."""
        if self.intended is not None and measured["start_time"] > self.intended:
            measured["response_time"] += (measured["start_time"] - self.intended) * 1e3
            measured["start_time"] = self.intended
        self.environment.events.request.fire(**measured)


class Hello(FixedRate, FastHttpUser):
    """Gets --path."""

    connection_timeout = network_timeout = ANSWER_SECONDS

    def on_start(self) -> None:
        self.client.request_event = self  # whose fire() knows the intended start
        super().on_start()

    @task
    def get(self) -> None:
        path, name = self.pick()
        self.client.get(path, name=name)

    def pick(self) -> tuple[str, str]:
        """Return what is asked for next, and what it is called."""
        return self.environment.parsed_options.path, "request"


class Mixed(Hello):
    """Gets --path, but one time in 20 --slow-path."""

    def pick(self) -> tuple[str, str]:
        options = self.environment.parsed_options
        return (options.slow_path, "slow") if random() < 0.05 else (options.path, "fast")


class Closed(Exception):
    """The server ended the WebSocket."""


class Socket:
    """A WebSocket. Its methods raise Closed, WebSocketException or OSError once it has ended, or after `seconds`."""

    def __init__(self, url: str) -> None:
        try:
            self._socket = websocket.create_connection(url, ANSWER_SECONDS)
        except websocket.WebSocketBadStatusException as error:
            raise Closed(f"handshake answered {error.status_code}") from error
        self.close = self._socket.close

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
    url = ""

    def on_start(self) -> None:
        self.url = str(self.host).replace("http", "ws", 1) + self.environment.parsed_options.ws_path
        self.connect()
        super().on_start()

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

    number = 0

    def talk(self, ws: Socket) -> None:
        with self.reporting("message") as measured:
            self.number += 1
            ws.send(str(self.number))
            if (heard := ws.receive()) != str(self.number):
                measured["exception"] = ValueError(f"sent {self.number}, heard {heard[:40]}")


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

    heard = 0

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
    number = 0

    def interval(self, rate: float) -> float:
        return 1 / (rate or 1)

    def talk(self, ws: Socket) -> None:
        with self.reporting("said") as measured:
            measured["quiet"] = True
            self.number += 1
            ws.send(f"{self.number} {self.intended}")
            ws.receive()
