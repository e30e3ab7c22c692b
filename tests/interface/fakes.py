"""Clients of an interface that note what they are told, as the edge's connections would be."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from asgictl.interface.edge import Standing
from asgictl.telemetry.access_log import UNLOGGED, WebSocketLog
from asgictl.wire.messages import Accept, Close, Frame, Headers


class RecordingRequest:
    """A ClientRequest. wants: how often it was asked for more of the body. parts: of the response's body."""

    home = ""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_aborted = self.is_complete = False
        self.wants = 0
        self.status = 0
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.tasks: list[asyncio.Future[None]] = []

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(serving))

    def want(self) -> None:
        self.wants += 1

    def respond(self, status: int, headers: Headers, body: bytes, more: bool) -> None:
        assert not self.status, "it has begun already"
        self.status, self.headers = status, headers
        self.write(body, more)

    def write(self, body: bytes, more: bool) -> None:
        assert self.status, "it has not begun"
        assert not self.is_complete, "it is over"
        assert not self.is_aborted, "it is over"
        self.parts.append(body)
        self.is_complete = not more

    def abort(self) -> None:
        assert self.status, "it has not begun"
        assert not self.is_complete, "it is over"
        self.is_aborted = True


class RecordingSocket:
    """A ClientSocket. sent: what it was told to send. is_held: it is not to be read. ended: set once it was closed."""

    home = ""

    def __init__(self) -> None:
        self.is_open = True
        self.is_accepted = False
        self.log: WebSocketLog = UNLOGGED
        self.waiting_bytes = 0
        self.sent: list[Accept | Frame | Close] = []
        self.is_held = False
        self.is_suspended = self.is_let_go = False
        self.ended = asyncio.Event()
        self.tasks: list[asyncio.Future[None]] = []

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(serving))

    def accept(self, accept: Accept) -> None:
        if self.is_open:
            self.is_accepted = True
            self.sent.append(accept)

    def frame(self, frame: Frame) -> None:
        if self.is_open and self.is_accepted:
            self.sent.append(frame)

    def close(self, close: Close) -> None:
        if self.is_open:
            self.is_open = False
            self.sent.append(close)
            self.ended.set()

    def pause(self) -> None:
        self.is_held = True

    def resume(self) -> None:
        self.is_held = False

    def suspend(self) -> Standing | None:
        self.is_suspended = not self.waiting_bytes
        return Standing(7, b"") if self.is_suspended else None

    def wake(self) -> None:
        self.is_suspended = False

    def let_go(self) -> None:
        self.is_let_go = True

    @property
    def frames(self) -> list[Frame]:
        """The frames that were sent."""
        return [each for each in self.sent if isinstance(each, str | bytes)]

    @property
    def closed(self) -> Close:
        """The close, or the refusal, which nothing follows."""
        last = self.sent[-1]
        assert isinstance(last, Close)
        return last

    def kinds(self) -> list[str]:
        """What was sent: "accept", "frame" or "close" each."""
        return ["frame" if isinstance(each, str | bytes) else type(each).__name__.lower() for each in self.sent]
