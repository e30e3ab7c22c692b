"""One turn of a WebSocket: the messages that its consumer is called with, and the reply that they add up to.

Both modes run turns through here, so a consumer behaves the same in a worker and in the server's own process.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from operator import index
from time import perf_counter
from typing import Any

import msgspec
from asgiref.sync import sync_to_async

from asgictl.app.application import Application, Consumer, Route, group_name
from asgictl.app.boundary import UserCode, in_its_own_task
from asgictl.app.django import session_of, user_of
from asgictl.app.outcome import Outcome, SendNow, encodable, frame_of
from asgictl.errors import ConsumerError
from asgictl.wire.messages import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    Accept,
    Close,
    Connect,
    Disconnect,
    Done,
    Frame,
    Frames,
    Receive,
    Scope,
    TurnEvent,
    decode_scope,
    decode_state,
    encode,
    encode_state,
    plain,
)

LAST_TURN = 1 << 40  # newer than any that the interface itself has numbered
STATE_BYTES = 64 << 10
# That an endpoint may send, and what a close frame holds beside its code (RFC 6455, sections 7.4 and 5.5).
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
CLOSE_REASON_BYTES = 123


class Message:
    """What a consumer is called with: one event of one WebSocket, and the ways to answer it.

    text or data: the frame (receive only; the other is None). params: what the path's pattern matched.
    state: a dict that travels with the connection, at most 64 KiB encoded. id: stable over reruns of the same
    frame; attempt: 1, and one more for each rerun. code and reason: how the connection ended (disconnect only).
    """

    def __init__(self, turn: "RunningTurn", position: int, frame: Frame | None) -> None:
        event = turn.event
        self._turn = turn
        self.text = frame if isinstance(frame, str) else None
        self.data = frame if isinstance(frame, bytes) else None
        self.params = turn.params
        self.attempt = event.attempt
        self.id = f"{event.connection}:{event.first + position if isinstance(event, Receive) else turn.kind}"
        self.code = event.code if isinstance(event, Disconnect) else None
        self.reason = event.reason if isinstance(event, Disconnect) else ""

    @property
    def scope(self) -> Scope:
        """What travels of the handshake, as ASGI has it."""
        return self._turn.scope

    @property
    def path(self) -> str:
        """The path, percent-decoded (ASGI `path`)."""
        return self._turn.scope.path

    @property
    def query_string(self) -> bytes:
        """The query, still percent-encoded (ASGI `query_string`)."""
        return self._turn.scope.query_string

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers (RFC 6455, section 1.9)."""
        return list(self._turn.scope.subprotocols)

    @property
    def headers(self) -> dict[str, str]:
        """The handshake's headers, names in lower case; repeated ones joined by ", " (RFC 9110, section 5.2)."""
        return self._turn.headers

    @property
    def state(self) -> dict[str, Any]:
        """The connection's own dict; what MessagePack can carry may be put into it."""
        return self._turn.state

    @property
    def session(self) -> Any:
        """Django's session of the handshake's cookie, loaded in each turn that looks at it; save() it to change it.

        In an `async def` consumer: `await sync_to_async(getattr)(message, "user")`, as Django wants it for its ORM.
        Raises ConsumerError where Django is not set up, for `user` too.
        """
        return self._turn.session

    @property
    def user(self) -> Any:
        """Django's user of that session, or its AnonymousUser: who has logged out meanwhile is no user any more."""
        return self._turn.user

    @property
    def _outcome(self) -> Outcome:
        """Raises ConsumerError once the event is over, as in a thread that outlives it: nothing would be sent."""
        if self._turn.outcome.is_over:
            raise ConsumerError(
                f"the event {self.id} is over, and nothing more is sent with its message: join a group, send to that"
            )
        return self._turn.outcome

    def accept(self, subprotocol: str | None = None, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Accept the handshake; headers are pairs of bytes. Raises ConsumerError elsewhere than in `connect`."""
        if not isinstance(self._turn.event, Connect):
            raise ConsumerError("message.accept() belongs in a connect consumer")
        try:
            pairs = [[plain(each) for each in header] for header in headers or ()]
            accept = msgspec.convert((plain(subprotocol), pairs), Accept)
        except (msgspec.ValidationError, TypeError) as error:
            raise ConsumerError(f"accept(subprotocol: str, headers: pairs of bytes): {error}") from None
        if accept.subprotocol is not None:
            encodable(accept.subprotocol)
        self._outcome.accept = accept

    def reply(self, *, text: str | None = None, data: bytes | None = None, immediately: bool = False) -> None:
        """Send one frame to this connection when this turn commits: once, however often it runs.

        immediately: send it now, as for progress; should the turn run again, it is sent again.
        Raises ConsumerError for a frame that is none, for a connection that has gone, as in a disconnect consumer,
        and for immediately=True before the connection is open.
        """
        frame = frame_of(text, data)
        if isinstance(self._turn.event, Disconnect):
            raise ConsumerError(
                "reply() in a disconnect consumer: the connection has gone; send to a group, or nothing"
            )
        if not immediately:
            self._outcome.frames.append(frame)
        elif isinstance(self._turn.event, Receive):
            self._outcome.send_now(Frames(self._turn.event.connection, [frame]))
        else:
            raise ConsumerError("reply(immediately=True) belongs in a receive consumer: the connection must be open")

    def join(self, group: str) -> None:
        """Make this connection a member of a group, until it leaves or ends. The turn's last join or leave counts."""
        self._outcome.memberships.append((group_name(group), True))

    def leave(self, group: str) -> None:
        """End this connection's membership."""
        self._outcome.memberships.append((group_name(group), False))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close this connection after what was sent; in `connect`, before accept(), refuse it with HTTP 403.

        Raises ConsumerError for a code or reason that RFC 6455, section 7.4, does not let an endpoint send.
        """
        try:
            number = index(code)
        except TypeError:
            number = 0
        if number not in CLOSE_CODES:
            raise ConsumerError(
                f"close code {code!r:.60} may not be sent; use 1000, 1001, 1007 to 1014 or 3000 to 4999"
            )
        if not isinstance(reason, str) or len((reason := encodable(reason)).encode()) > CLOSE_REASON_BYTES:
            raise ConsumerError(f"a close reason is a str of at most {CLOSE_REASON_BYTES} bytes of UTF-8")
        self._outcome.close = Close(number, reason)


class RunningTurn:
    """One turn being run.

    Use run() from a thread, or await run_async() on an event loop. Neither raises for what a consumer does: an
    exception is logged once and closes the connection with 1011, or refuses its handshake with 500.
    """

    def __init__(self, application: Application, event: TurnEvent, now: SendNow | None = None) -> None:
        self.event = event
        self.outcome = Outcome(now, application.depths)
        self.params: dict[str, str] = {}
        self.consumer: Consumer | None = None
        self.is_async = False  # its calls are to be awaited
        self.run_seconds = 0.0
        self.scope = decode_scope(event.scope)
        self.kind = event.channel.removeprefix("websocket.")
        found: tuple[Route, dict[str, str]] | None = application.route(self.scope.local_path)
        if found:
            self.consumer = found[0].consumers.get(self.kind)
            self.params = found[1]
            self.is_async = self.kind in found[0].async_kinds
        self._found = found is not None
        self._says_farewell = found is not None and "disconnect" in found[0].consumers

    @cached_property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.scope.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            comma = "; " if name == "cookie" else ", "  # RFC 9113, section 8.2.3
            headers[name] = f"{headers[name]}{comma}{value}" if name in headers else value
        return headers

    @cached_property
    def session(self) -> Any:
        return session_of(self.headers.get("cookie", ""))

    @cached_property
    def user(self) -> Any:
        return user_of(self.session)

    @cached_property
    def state(self) -> dict[str, Any]:
        return decode_state(self.event.state)

    def farewell(self) -> bytes:
        """Return the disconnect event to run should the interface die, when this turn makes it new; else b""."""
        event, reply = self.event, self._reply
        if not self._says_farewell or isinstance(event, Disconnect) or not (reply.accept or reply.state):
            return b""
        state = reply.state or event.state
        return encode(Disconnect(event.connection, LAST_TURN, 1, event.scope, state, ABNORMAL_CLOSURE, ""))[1]

    def _messages(self) -> Iterator[Message]:
        """Yield what the consumer is called with; nothing after it closed the connection."""
        frames = self.event.frames if isinstance(self.event, Receive) else [None]
        for position, frame in enumerate(frames):
            if self.consumer and self.outcome.close is None:
                yield Message(self, position, frame)

    def run(self) -> Done:
        """Call the consumer, one message after another, in this thread; returns the reply to commit."""
        close_old_connections()
        with self._answering():
            for message in self._messages():
                self.consumer(message)  # type: ignore[misc]  # no consumer, no messages
        close_old_connections()
        return self._reply

    async def run_async(self, timeout_seconds: float | None = None) -> Done:
        """The same for an `async def` consumer, which is cancelled when its time is over: an exception like others."""
        return await in_its_own_task(self._run_async(timeout_seconds), self.failed)

    async def _run_async(self, timeout_seconds: float | None) -> Done:
        await close_old_connections_async()
        with self._answering():
            async with asyncio.timeout(timeout_seconds):
                for message in self._messages():
                    await self.consumer(message)  # type: ignore[misc]  # is_async says that it is awaitable
        await close_old_connections_async()
        return self._reply

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Around the consumer's calls: afterwards there is a reply, whatever the consumer did."""
        began = perf_counter()
        with UserCode("%s of %s failed", self.event.channel, self.scope.path) as ended:
            with self.outcome:
                try:
                    yield
                finally:
                    self.run_seconds = perf_counter() - began
            self._reply = self._done()
        if ended.error is not None:
            self._reply = self.failed()

    def _done(self) -> Done:
        event, outcome, state = self.event, self.outcome, b""
        if "state" in self.__dict__:  # only a state that was looked at can have changed
            state = self._encoded_state()
        if isinstance(event, Connect) and not self._found:
            outcome.close = Close(INTERNAL_ERROR, "", 404)  # another release had the path
        elif isinstance(event, Connect) and self.consumer is None:
            outcome.accept = Accept(None, [])
        if isinstance(event, Connect) and outcome.accept is None and outcome.close is None:
            raise ConsumerError(f"the connect consumer of {self.scope.path} called neither accept() nor close()")
        return Done(
            event.connection,
            event.number,
            outcome.frames,
            state,
            outcome.accept,
            outcome.close,
            outcome.groups(joined=True),
            outcome.groups(joined=False),
            event.attempt,
            run_seconds=self.run_seconds,
        )

    def _encoded_state(self) -> bytes:
        try:
            state = encode_state(self.state) or b"\x80"  # an emptied dict is a change too
        except (TypeError, ValueError, OverflowError) as error:
            raise ConsumerError(f"message.state holds what MessagePack cannot carry: {error}") from error
        if len(state) > STATE_BYTES:
            raise ConsumerError(f"message.state is {len(state)} bytes encoded; {STATE_BYTES} is the most")
        return b"" if state == (self.event.state or b"\x80") else state

    def failed(self) -> Done:
        """Return an exception's reply: nothing of what was buffered leaves, and the connection ends."""
        self.outcome = Outcome(is_over=True)
        status = 500 if isinstance(self.event, Connect) else 403
        close, event = Close(INTERNAL_ERROR, "", status), self.event
        return Done(
            *(event.connection, event.number, [], b"", None, close, [], [], event.attempt), run_seconds=self.run_seconds
        )


def close_old_connections() -> None:
    """Around every event, as Django does around every request; only where Django's ORM is loaded."""
    if "django.db" in sys.modules:
        with UserCode("Django's old database connections could not be closed"):
            sys.modules["django.db"].close_old_connections()


async def close_old_connections_async() -> None:
    """The same from an event loop; Django's connections belong to threads."""
    if "django.db" in sys.modules:
        await sync_to_async(close_old_connections)()
