"""Channels 1's spelling over our consumers: its routing lists run with nothing but their imports changed.

A routing list is one WebSocket path that matches every path: which route takes an event is decided in the worker. A
connection is the only member of a group that is named like its reply channel, so who knows the name can send to it.
What a consumer sends to a channel with its own connection's `reply_channel` runs next, in the same turn: so it has the
connection's session, may join groups for it, and keeps its order. docs/from-channels-1.md says what differs.
"""

import re
from collections import UserDict, deque
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any, TypeVar

from asgictl.app import application as ours
from asgictl.app import sending
from asgictl.app.message import BackgroundMessage
from asgictl.app.message import Message as OurMessage
from asgictl.errors import ConsumerError, TargetError
from asgictl.wire.manifest import check_known

C = TypeVar("C", bound=Callable[..., Any])
Content = dict[str, Any]
REPLY = "reply!"  # begins the name of every reply channel, and of no other
CONNECT = "websocket.connect"
WEBSOCKET = {"connect": CONNECT, "receive": "websocket.receive", "disconnect": "websocket.disconnect"}
OF_THE_CONNECTION = {"channel_session": "state", "http_session": "session", "user": "user"}


@dataclass(frozen=True, slots=True)
class _Turn:
    """A connection's event being handled. waiting: what is to run in it; known: the channels of background work."""

    message: OurMessage
    channel: str
    name: str  # of its reply channel
    known: Collection[str]
    waiting: deque[tuple[str, Content]] = field(default_factory=deque)


_turn: ContextVar[_Turn | None] = ContextVar("asgictl_channels1_turn", default=None)


class Channel:
    """A background channel, or a connection's reply channel. Raises as asgictl.Channel and asgictl.Message do."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def send(self, content: Content, immediately: bool = False) -> None:
        """Send a dict; to a reply channel text or bytes, and from the connection's own consumers accept or close."""
        turn = _turn.get()
        if not self.name.startswith(REPLY):
            if turn and content.get("reply_channel") == turn.name:
                check_known(self.name, turn.known)
                turn.waiting.append((self.name, content))
            else:
                sending.Channel(self.name).send(content, immediately=immediately)
        elif turn is None or turn.name != self.name:
            _send_to(self.name, content, immediately)
        else:
            frame, accept, close = _frame(content), content.get("accept"), content.get("close")
            if accept or (accept is None and frame and turn.channel == CONNECT):
                turn.message.accept()
            if frame:
                turn.message.reply(**frame, immediately=immediately)
            if close or accept is False:
                turn.message.close(close if close and close is not True else 1000)


class Group:
    """A named set of connections. `add` and `discard` are for the connection whose event is being handled."""

    def __init__(self, name: str) -> None:
        self.name: str = sending.group_name(name)

    def add(self, channel: Channel | str) -> None:
        """Add the connection, once its event is committed. Raises ConsumerError for another's channel."""
        _own(channel).join(self.name)

    def discard(self, channel: Channel | str) -> None:
        """End its membership. Raises ConsumerError for another's channel."""
        _own(channel).leave(self.name)

    def send(self, content: Content, immediately: bool = False) -> None:
        """Send "text" or "bytes" to every member."""
        _send_to(self.name, content, immediately)


class Message(UserDict[str, Any]):
    """What a consumer is called with: `content`, also by key; `channel_session`, `http_session` and `user`."""

    def __init__(self, content: Content, channel: str, message: OurMessage | None) -> None:
        self.content: Content = content
        self.data = content
        self.channel: Channel = Channel(channel)
        self.reply_channel: Channel | None = Channel(content["reply_channel"]) if "reply_channel" in content else None
        self._message = message

    def __getattr__(self, name: str) -> Any:
        if name not in OF_THE_CONNECTION:
            raise AttributeError(name)
        if self._message is None:
            raise ConsumerError(
                f"a message of channel {self.channel} has a session and a user only when a consumer of the connection"
                " sent it, with its message.content['reply_channel']"
            )
        return getattr(self._message, OF_THE_CONNECTION[name])


@dataclass(frozen=True, slots=True)
class Route:
    """patterns: of an include, then of what it includes; each sees what the one before has not matched."""

    channel: str
    consumer: Callable[..., Any]
    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    def match(self, content: Content) -> dict[str, Any] | None:
        """Return what the patterns capture, or None unless all match."""
        rest = dict(content)
        captured: dict[str, Any] = {}
        for name, pattern in self.patterns:
            value = rest.get(name)
            found = pattern.match(value) if isinstance(value, str) else None
            if found is None:
                return None
            captured |= found.groupdict()
            rest[name] = found.string[found.end() :]
        return captured


def route(channel: str, consumer: Callable[..., Any] | str, **filters: str) -> Route:
    """Route a channel's messages to a function, or the dotted name of one. filters: regular expressions, by field."""
    found = _resolved(consumer)
    if not callable(found) or isinstance(found, type) or ours.is_async(found):
        raise TargetError(
            f"route({channel!r}, {consumer!r}): a consumer must be a function, not a class or an async def"
        )
    return Route(channel, found, _compiled(filters))


def include(routing: Any, **filters: str) -> list[Route]:
    """Return the routes of a list, dict or dotted name; they see what stands behind what the filters match."""
    found = _resolved(routing)
    routes: list[Route] = []
    for each in [route(*pair) for pair in found.items()] if isinstance(found, Mapping) else found:
        routes += each if isinstance(each, list) else [each]
    if not all(isinstance(each, Route) for each in routes):
        raise TargetError("a Channels 1 routing list holds route(...) and include(...) of asgictl.channels1 alone")
    return [replace(each, patterns=_compiled(filters) + each.patterns) for each in routes]


def application(
    routing: Any, *, http: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None
) -> ours.Application:
    """Return a routing list as an Application. http: as Application has it.

    Raises TargetError for a list that cannot serve, or has routes of http.*: requests go to a WSGI or ASGI application.
    """
    routes = include(routing)
    channels = {each.channel for each in routes}
    if any(name.startswith("http.") for name in channels):
        raise TargetError("route('http....'): no consumer takes requests; give application(http=) a WSGI application")
    background = {name: partial(_run_job, routes) for name in channels.difference(WEBSOCKET.values())}
    consumers: dict[str, Any] = {
        kind: partial(_run, routes, name, background)
        for kind, name in WEBSOCKET.items()
        if name in channels or name == CONNECT  # which makes the reply channel known
    }
    return ours.Application(http, [ours.path("/{path:path}", **consumers)], background=background)


def enforce_ordering(consumer: Any = None, slight: bool = False) -> Any:
    """Do nothing, with or without arguments: order is always kept."""
    return consumer or enforce_ordering


def channel_session(consumer: C) -> C:
    """Do nothing: every message has its sessions and its user, which are loaded when they are asked for."""
    return consumer


http_session = http_session_user = channel_and_http_session = channel_session
channel_session_user = channel_session_user_from_http = channel_and_http_session_user_from_http = channel_session


def _run(routes: list[Route], channel: str, known: Collection[str], message: OurMessage) -> None:
    turn = _Turn(message, channel, REPLY + message.id.rpartition(":")[0], known)
    token = _turn.set(turn)
    try:
        if channel == CONNECT:
            message.join(turn.name)
        if not _take(routes, channel, _content(turn), message) and channel == CONNECT:
            # As there: who routes no handshakes wants all of them, and otherwise none that no route matches.
            message.close() if any(each.channel == CONNECT for each in routes) else message.accept()
        while turn.waiting:
            _take(routes, *turn.waiting.popleft(), message)
    finally:
        _turn.reset(token)


def _run_job(routes: list[Route], message: BackgroundMessage) -> None:
    _take(routes, message.channel, message.content, None)


def _take(routes: list[Route], channel: str, content: Content, message: OurMessage | None) -> bool:
    """Call the consumer of the first route that matches; returns whether there is one."""
    for each in routes:
        if each.channel == channel and (captured := each.match(content)) is not None:
            each.consumer(Message(content, channel, message), **captured)
            return True
    return False


def _content(turn: _Turn) -> Content:
    """Return what Channels 1's message format has for a WebSocket's event; the scope's part is in each of them."""
    message, scope = turn.message, turn.message.scope
    content: Content = {"reply_channel": turn.name, "path": scope.local_path, "query_string": scope.query_string}
    for name in ("root_path", "scheme", "headers", "client", "server"):
        content[name] = getattr(scope, name)
    frame = {"text": message.text, "bytes": message.data, "code": message.code}
    return content | {name: value for name, value in frame.items() if value is not None}


def _own(channel: Channel | str) -> OurMessage:
    turn = _turn.get()
    if turn is None or turn.name != str(channel):
        raise ConsumerError(
            f"only a consumer of the connection {channel} can add it to a group, or discard it: send to its channel"
            " what makes the client ask for that, or do it in `connect`"
        )
    return turn.message


def _send_to(group: str, content: Content, immediately: bool) -> None:
    if not _frame(content) or content.get("close") or content.get("accept"):
        raise ConsumerError(f"other connections can be sent text or bytes, not {sorted(content)}")
    sending.Group(group).send(**_frame(content), immediately=immediately)


def _frame(content: Content) -> dict[str, Any]:
    frame = {"text": content.get("text"), "data": content.get("bytes")}
    return {name: value for name, value in frame.items() if value is not None}


def _resolved(named: Any) -> Any:
    try:
        return resolve_name(named) if isinstance(named, str) else named
    except (ValueError, AttributeError, ModuleNotFoundError) as error:
        raise TargetError(f"{named!r} in a routing list cannot be imported: {error}") from error


def _compiled(filters: Mapping[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    try:
        return tuple((name, re.compile(pattern)) for name, pattern in filters.items())
    except re.error as error:
        raise TargetError(f"a routing list has an invalid pattern: {error.pattern!r}: {error}") from None
