"""One WebSocket on its way through an ASGI application (ASGI, WebSocket connection scope)."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from asgictl.app.boundary import UserCode
from asgictl.app.outcome import encodable
from asgictl.layers import flow_control
from asgictl.layers.base import Entry
from asgictl.layers.flow_control import OrderedReceiver, OrderedSender, weight
from asgictl.layers.redis.refused import Commit
from asgictl.layers.redis.worker_side import commit_arguments
from asgictl.wire.asgi import ASGIMessage, accept_of, bytes_of, close_of, denial_of, status_of
from asgictl.wire.messages import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    SERVICE_RESTART,
    WINDOW_BYTES,
    Accept,
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frames,
    Incoming,
    Want,
    WorkerMessage,
    plain,
)
from asgictl.worker.asgi_http import extend
from asgictl.worker.async_runner import EventLoop
from asgictl.worker.response import ClientDisconnected, ResponseParts

INTERFACE_GONE = -1  # as commit.lua says it


class State(Enum):
    CONNECTING = auto()
    DENYING = auto()  # a response of the application's refuses the handshake
    OPEN = auto()
    CLOSED = auto()  # by the application, or refused
    GONE = auto()  # by anybody else


class WebSocketRun:
    """Await run(); take() hears the messages to this socket. code: the application's, to be made cancellable."""

    def __init__(
        self, entry: Entry, event: Connect, scope: dict[str, Any], events: EventLoop, timeout_seconds: float = 0
    ) -> None:
        self._entry = entry
        self._event = event
        self._scope = scope
        self._events = events
        self._timeout_seconds = timeout_seconds
        self._limit = asyncio.Timeout(None)  # of an application that does not answer, or does not end
        self._state = State.CONNECTING
        self._is_answered = False
        self._is_listening = False  # the interface knows whom to tell when the client leaves
        self._sender: OrderedSender[Frames | Want | Closed] = OrderedSender(events.reply, self._lost)
        self._heard = OrderedReceiver(self.restart)
        self._incoming = asyncio.Queue[ASGIMessage]()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self._window = flow_control.Window(WINDOW_BYTES, 4, is_granted=True)  # of the client's frames
        self._credit = flow_control.Credit(WINDOW_BYTES)
        self._room = asyncio.Event()
        self._denial = ResponseParts(event, entry.id, "")
        self._denial_body = b""
        # What it was told, and did not catch, is no failure.
        self.code: UserCode = UserCode("WebSocket %s failed", scope["path"], expected=ClientDisconnected)
        self.has_failed: bool = False

    async def run(self, application: Callable[..., Any]) -> None:
        """Run the application; whatever it does, its handshake is answered and its socket closed when this returns."""
        with self.code as ended:
            async with self._limit:
                extend(self._limit, self._timeout_seconds)
                await application(self._scope, self._receive, self._send)
            if self._state in {State.CONNECTING, State.DENYING}:
                raise RuntimeError("the application returned without answering the handshake")
        self.has_failed = not isinstance(ended.error, ClientDisconnected | None)
        if self._state is State.OPEN:
            self._close(INTERNAL_ERROR if self.has_failed else 1000, "")
        elif not self._is_answered:
            status = 503 if self._state is State.GONE else 504 if self._limit.expired() else 500
            await self._answer(close=Close(INTERNAL_ERROR, "", status))
        await self._sender.settle()

    def take(self, message: WorkerMessage) -> None:
        """Hear a message of the interface."""
        if not isinstance(message, Incoming | Ended | Credit):  # another worker had answered first, or nobody waits
            self._end(ABNORMAL_CLOSURE, "")
        elif not self._heard.is_next(message.sequence):
            pass
        elif isinstance(message, Incoming):
            kind = "text" if isinstance(message.frame, str) else "bytes"
            self._incoming.put_nowait({"type": "websocket.receive", kind: message.frame})
        elif isinstance(message, Ended):
            self._end(message.code, message.reason)
        else:
            self._credit.grant(message.size)
            self._room.set()

    def restart(self) -> None:
        """This worker ends, or Redis has lost a part of what was said: the client is to connect again."""
        if self._state is State.OPEN:
            self._close(SERVICE_RESTART, "", State.GONE)
        else:
            self._end(SERVICE_RESTART, "")

    async def _receive(self) -> ASGIMessage:
        if self._incoming.empty() and not (self._is_answered or self._is_listening):
            self._is_listening = True
            self._events.reply(self._want(0, 0), lambda _answer: None)
        message = await self._incoming.get()
        if message["type"] == "websocket.disconnect":  # which it hears as often as it asks
            self._incoming.put_nowait(message)
        if message["type"] == "websocket.receive":
            self._window.take(weight(message["text"] if "text" in message else message["bytes"]))
            if due := self._window.due():
                self._sender.send(self._want(due, self._sender.next_sequence()))
        return message

    def _want(self, size: int, sequence: int) -> Want:
        event = self._event
        return Want(event.connection, event.attempt, self._entry.id, self._events.inbox, size, sequence)

    async def _send(self, message: ASGIMessage) -> None:
        kind, state = message["type"], self._state
        if state is State.GONE and kind == "websocket.close":
            return  # many applications close whatever they heard
        if state is State.GONE:
            raise ClientDisconnected("the client has gone")
        if kind == "websocket.accept" and state is State.CONNECTING:
            accept = accept_of(message.get("subprotocol"), message.get("headers"))
            self._state = State.OPEN
            await self._answer(accept=accept)
        elif kind == "websocket.send" and state is State.OPEN:
            await self._send_frame(message)
        elif kind == "websocket.close" and state is State.OPEN:
            self._close(message.get("code", 1000), encodable(plain(message.get("reason")) or ""))
        elif kind == "websocket.close" and state is State.CONNECTING:
            await self._answer(close=Close(1000, "", 403))
        elif kind == "websocket.http.response.start" and state is State.CONNECTING:
            self._denial.begin(status_of(message["status"], 599), message.get("headers") or ())
            self._state = State.DENYING
        elif kind == "websocket.http.response.body" and state is State.DENYING:
            self._denial_body = denial_of(self._denial_body + bytes_of(message.get("body", b"")))
            if not message.get("more_body", False):
                (part,) = self._denial.parts(self._denial_body, lambda: len(self._denial_body), more=False)
                await self._answer(close=Close(1000, "", part.status, part.headers, part.body))
        else:
            raise RuntimeError(f"{kind} out of order: the socket is {state.name}")

    async def _send_frame(self, message: ASGIMessage) -> None:
        data = message.get("bytes")
        frame = message["text"] if data is None else bytes_of(data)
        if not isinstance(frame, str | bytes):
            raise TypeError(f"websocket.send takes text: str or bytes: bytes, not {type(frame).__name__}")
        frame = encodable(frame) if isinstance(frame, str) else frame
        self._sender.send(Frames(self._event.connection, [frame], self._sender.next_sequence(), self._entry.id))
        self._credit.spend(weight(frame))
        while self._credit.is_spent and self._state is State.OPEN:
            self._room.clear()
            await self._room.wait()
        if self._state is State.GONE:
            raise ClientDisconnected("the client has gone")

    def _close(self, code: int, reason: str, state: State = State.CLOSED) -> None:
        """Close; raises websockets' ProtocolError for a code or reason that may not be sent, as other servers do."""
        close_of(code, reason)
        self._sender.send(Closed(self._event.connection, code, reason, self._sender.next_sequence(), self._entry.id))
        self._end(code, reason, state)

    async def _answer(self, accept: Accept | None = None, close: Close | None = None) -> None:
        self._is_answered = True
        extend(self._limit, 0)
        if close:
            self._end(ABNORMAL_CLOSURE, "", State.CLOSED)
        inbox = self._events.inbox if accept else ""
        event = self._event
        done = Done(event.connection, 0, [], b"", accept, close, [], [], event.attempt, self._entry.id, inbox)
        arguments = commit_arguments(self._events.keys, self._entry, done, [])
        commit = self._events.commit(Commit(self._entry, done), arguments)
        if await asyncio.shield(commit) == INTERFACE_GONE:  # whoever answers may be cancelled meanwhile
            self._lost()

    def _end(self, code: int, reason: str, state: State = State.GONE) -> None:
        if self._state not in {State.CLOSED, State.GONE}:
            self._state = state
            extend(self._limit, self._timeout_seconds)
            self._room.set()
            self._incoming.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _lost(self) -> None:
        """The interface that held the socket is no more."""
        self._end(ABNORMAL_CLOSURE, "")
