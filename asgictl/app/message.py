"""The arguments of consumers: a Message for each WebSocket event, a BackgroundMessage for each job."""

from functools import cached_property
from operator import index
from typing import Any

from asgictl.app.django import session_of, user_of
from asgictl.app.outcome import Outcome, encodable, frame_of
from asgictl.app.sending import group_name, milliseconds
from asgictl.errors import ConsumerError
from asgictl.wire.asgi import accept_of
from asgictl.wire.messages import (
    Close,
    Connect,
    Disconnect,
    Frame,
    Frames,
    Job,
    Receive,
    Scope,
    TurnEvent,
    decode_scope,
)
from asgictl.wire.state import decode_state

# That an endpoint may send, and what a close frame holds beside its code (RFC 6455, sections 7.4 and 5.5).
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
CLOSE_REASON_BYTES = 123


class Turn:
    """The data that all messages of one turn share. Each part is decoded on first access."""

    def __init__(self, event: TurnEvent, outcome: Outcome) -> None:
        self.event = event
        self.outcome = outcome
        self.params: dict[str, str] = {}
        self.scope: Scope = decode_scope(event.scope)
        self.kind: str = event.kind

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


class Message:
    """The argument of a consumer: one event of one WebSocket, with methods to answer it.

    text or data: the frame (receive only; the other is None). params: what the path's pattern matched.
    state: a dict that travels with the connection, at most 64 KiB encoded. id: stable over reruns of the same
    frame; attempt: 1, and one more for each rerun. code and reason: how the connection ended (disconnect only).
    """

    text: str | None = None
    data: bytes | None = None
    code: int | None = None
    reason: str = ""

    def __init__(self, turn: Turn, position: int, frame: Frame | None) -> None:
        event = turn.event
        self._turn = turn
        self._position = position
        if isinstance(frame, str):
            self.text = frame
        else:
            self.data = frame
        self.params: dict[str, str] = turn.params
        self.attempt: int = event.attempt
        if isinstance(event, Disconnect):
            self.code, self.reason = event.code, event.reason

    @property
    def id(self) -> str:
        """Stable over reruns of the same frame."""
        event = self._turn.event
        return f"{event.connection}:{event.first + self._position if isinstance(event, Receive) else event.kind}"

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
        """The connection's own dict: str keys, and values that MessagePack can carry, in dicts and lists of any depth.

        A tuple comes back as a list, a datetime with its time zone as it was, one without as a str.
        """
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
            self._outcome.accept = accept_of(subprotocol, headers)
        except (TypeError, ValueError) as error:
            raise ConsumerError(f"accept(subprotocol: str, headers: pairs of bytes): {error}") from None

    def reply(self, *, text: str | None = None, data: bytes | None = None, immediately: bool = False) -> None:
        """Send one frame to this connection when this turn commits: once, however often it runs.

        immediately: send it now, as for progress; should the turn run again, it is sent again.
        Raises ConsumerError for a frame that is none, for a connection that has gone, as in a disconnect consumer,
        and for immediately=True before the connection is open.
        """
        frame = frame_of(text, data)
        if isinstance(self._turn.event, Disconnect):
            raise ConsumerError(
                "reply() cannot be used in a disconnect consumer: the connection is closed; send to a group"
            )
        if not immediately:
            self._outcome.frames.append(frame)
        elif isinstance(self._turn.event, Receive):
            self._outcome.send_now(Frames(self._turn.event.connection, [frame]))
        else:
            raise ConsumerError("reply(immediately=True) belongs in a receive consumer: the connection must be open")

    def join(self, group: str) -> None:
        """Make this connection a member of a group, until it leaves or ends. The turn's last join or leave counts.

        Of what this turn sends to the group, the connection gets what was sent while it was a member.
        """
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
            raise ConsumerError(f"a close reason must be a str of at most {CLOSE_REASON_BYTES} bytes of UTF-8")
        self._outcome.close = Close(number, reason)


class RetryLater(Exception):
    """Raised by a background consumer: it is to be called with the same message again, in so many seconds at least.

    What this call has sent is dropped, as after any exception, but for what it sent immediately. `attempt` is one more
    each time; those who ask may do so for ever, since only workers' deaths are counted against a message.
    Raises ConsumerError for a time that Channel.send would not take as a delay.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.milliseconds: int = milliseconds(seconds)


class BackgroundMessage:
    """What a background consumer is called with.

    content: the dict that was sent; channel: the name it was sent to. id: stable over reruns; attempt: 1, and one more
    for each rerun, because its worker died or because the consumer raised RetryLater. After three deaths, counted from
    its sending or from the last RetryLater, it is a dead letter. Another exception is logged and ends it.
    headers: traceparent and tracestate of the trace in which it was sent, where there is one.
    """

    def __init__(self, job: Job) -> None:
        self.content: dict[str, Any] = decode_state(job.content)
        self.channel: str = job.name
        self.id: str = job.id
        self.attempt: int = job.attempt
        self.headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in job.headers}
