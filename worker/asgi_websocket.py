"""One WebSocket on its way through an ASGI application (ASGI, WebSocket connection scope)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, MutableMapping
from enum import Enum, auto
from typing import Any

from asgictl.layers.base import Answered, Entry
from asgictl.layers.lane import Lane, Sequence
from asgictl.layers.redis_worker import commit_arguments
from asgictl.messages import (
    WINDOW_BYTES,
    Accept,
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frames,
    Headers,
    Incoming,
    Letter,
    Want,
)
from asgictl.worker.event_loop import EventLoop
from asgictl.wsgi import ClientDisconnected

logger = logging.getLogger("asgictl.worker")
Message = MutableMapping[str, Any]
FRAME_BYTES = 64  # that a frame counts for beside its own: as interface/relay.py has it
ABNORMAL_CLOSURE, INTERNAL_ERROR, SERVICE_RESTART = 1006, 1011, 1012


class State(Enum):
    CONNECTING = auto()
    DENYING = auto()  # a response of the application's refuses the handshake
    OPEN = auto()
    CLOSED = auto()


class WebSocketRun:
    """Await run(); take() hears the letters to this socket."""

    def __init__(self, entry: Entry, event: Connect, scope: dict[str, Any], events: EventLoop) -> None:
        self._entry = entry
        self._event = event
        self._scope = scope
        self._events = events
        self._state = State.CONNECTING
        self._lane: Lane[Frames | Closed] = Lane(self._add, self._lost)
        self._heard = Sequence()
        self._incoming: deque[Message] = deque([{"type": "websocket.connect"}])
        self._arrived = asyncio.Event()
        self._taken = 0  # bytes of frames that the interface was not told of
        self._credit = WINDOW_BYTES
        self._room = asyncio.Event()
        self._denial: tuple[int, Headers] = (403, [])
        self._denial_body = b""

    async def run(self, application: Callable[..., Any]) -> None:
        """Run the application; whatever it does, its socket is closed when it returns."""
        code = 1000
        try:
            await application(self._scope, self._receive, self._send)
            if self._state in {State.CONNECTING, State.DENYING}:
                raise RuntimeError("the application returned without answering the handshake")
        except ClientDisconnected:
            pass  # it was told, and did not catch it
        except Exception:
            logger.exception("WebSocket %s failed", self._scope["path"])
            code = INTERNAL_ERROR
        if self._state is State.OPEN:
            self._close(code, "")
        elif self._state is not State.CLOSED:
            await self._answer(close=Close(INTERNAL_ERROR, "", 500))

    def take(self, letter: Letter) -> None:
        """Hear a letter."""
        if isinstance(letter, Incoming) and self._heard.is_next(letter.sequence):
            kind = "text" if isinstance(letter.frame, str) else "bytes"
            self._put({"type": "websocket.receive", kind: letter.frame})
        elif isinstance(letter, Ended) and self._heard.is_next(letter.sequence):
            self._end(letter.code, letter.reason)
        elif isinstance(letter, Credit):
            self._credit += letter.size
            self._room.set()
        elif not isinstance(letter, Incoming | Ended):  # gone: another worker had answered the handshake first
            self._end(ABNORMAL_CLOSURE, "")

    def restart(self) -> None:
        """This worker ends: the client is to connect again."""
        if self._state is State.OPEN:
            self._close(SERVICE_RESTART, "")
            self._end(SERVICE_RESTART, "")

    async def _receive(self) -> Message:
        while not self._incoming:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._incoming[0]
        if message["type"] != "websocket.disconnect":  # which it hears as often as it asks
            self._incoming.popleft()
        if message["type"] == "websocket.receive":
            self._taken += len(message.get("text") or message.get("bytes") or b"") + FRAME_BYTES
            if self._taken >= WINDOW_BYTES // 4:
                want = Want(self._event.connection, 1, self._entry.id, self._events.inbox, self._taken)
                self._events.reply(want, lambda _answer: None)
                self._taken = 0
        return message

    async def _send(self, message: Message) -> None:
        kind, state = message["type"], self._state
        if state is State.CLOSED:
            raise ClientDisconnected("the socket is closed")
        if kind == "websocket.accept" and state is State.CONNECTING:
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers") or ()]
            self._state = State.OPEN
            await self._answer(accept=Accept(message.get("subprotocol"), headers))
        elif kind == "websocket.send" and state is State.OPEN:
            await self._send_frame(message)
        elif kind == "websocket.close" and state is State.OPEN:
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.close" and state is State.CONNECTING:
            await self._answer(close=Close(1000, "", 403))
        elif kind == "websocket.http.response.start" and state is State.CONNECTING:
            self._state = State.DENYING
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            self._denial = (int(message["status"]), headers)
        elif kind == "websocket.http.response.body" and state is State.DENYING:
            self._denial_body += bytes(message.get("body", b""))
            if not message.get("more_body", False):
                await self._answer(close=Close(1000, "", *self._denial, self._denial_body))
        else:
            raise RuntimeError(f"{kind} out of order: the socket is {state.name}")

    async def _send_frame(self, message: Message) -> None:
        data = message.get("bytes")
        frame = message["text"] if data is None else bytes(data)
        if data is None and not isinstance(frame, str):
            raise TypeError(f"websocket.send takes text: str or bytes: bytes, not {type(frame).__name__}")
        self._lane.send(Frames(self._event.connection, [frame], self._lane.next_sequence()))
        self._credit -= len(frame) + FRAME_BYTES
        while self._credit <= 0 and self._state is State.OPEN:
            self._room.clear()
            await self._room.wait()
        if self._state is not State.OPEN:
            raise ClientDisconnected("the client has gone")

    def _close(self, code: int, reason: str) -> None:
        self._state = State.CLOSED
        self._lane.send(Closed(self._event.connection, code, reason, self._lane.next_sequence()))

    async def _answer(self, accept: Accept | None = None, close: Close | None = None) -> None:
        if close:
            self._state = State.CLOSED
        inbox = self._events.inbox if accept else ""
        event = self._event
        done = Done(event.connection, 0, [], b"", accept, close, [], [], event.attempt, self._entry.id, inbox)
        await self._events.commit(*commit_arguments(self._events.keys, self._entry, done, []))

    def _end(self, code: int, reason: str) -> None:
        self._state = State.CLOSED
        self._room.set()
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _put(self, message: Message) -> None:
        self._incoming.append(message)
        self._arrived.set()

    def _add(self, message: Frames | Closed, answered: Answered) -> None:
        self._events.reply(message, answered)

    def _lost(self) -> None:
        """The interface that held the socket is no more."""
        self._end(ABNORMAL_CLOSURE, "")
