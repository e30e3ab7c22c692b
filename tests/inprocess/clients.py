"""Clients of the application inside the server, which note what they are told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from asgictl.telemetry.access_log import UNLOGGED, WebSocketLog
from asgictl.wire.messages import Accept, Close, Frame, Headers, Scope


def scope_of(method: str = "GET", path: str = "/") -> Scope:
    return Scope(method, "http", "1.1", "", path, path.encode(), b"", [], None, None)


class RequestClient:
    """A ClientRequest."""

    home = ""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.wanted = 0
        self.is_paused = False

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        self.task = asyncio.ensure_future(serving)

    def want(self) -> None:
        self.wanted += 1

    def respond(self, status: int, headers: Headers, body: bytes, more: bool) -> None:
        self.told.append((status, headers, body, more))

    def write(self, body: bytes, more: bool) -> None:
        self.told.append((body, more))

    def abort(self) -> None:
        self.told.append(("abort",))

    @property
    def statuses(self) -> list[int]:
        return [each[0] for each in self.told if len(each) == 4]


class SocketClient:
    """A ClientSocket."""

    def __init__(self) -> None:
        self.is_open = True
        self.is_accepted = False
        self.log: WebSocketLog = UNLOGGED
        self.waiting_bytes = 0
        self.told: list[object] = []

    def accept(self, accept: Accept) -> None:
        self.told.append(accept)

    def frame(self, frame: Frame) -> None:
        self.told.append(frame)

    def close(self, close: Close) -> None:
        if self.is_open:
            self.is_open = False
            self.told.append(close)

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        self.task = asyncio.ensure_future(serving)

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")
