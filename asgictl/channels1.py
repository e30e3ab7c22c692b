"""Channels 1's spelling over our consumers: its routing lists run with nothing but their imports changed.

A routing list is one WebSocket path that matches every path: which route takes an event is decided in the worker. A
connection is the only member of a group that is named like its reply channel, so who knows the name can send to it.
What a consumer sends to a channel with its own connection's `reply_channel` runs next, in the same turn: so it has the
connection's session, may join groups for it, and keeps its order. docs/from-channels-1.md says what differs.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from pkgutil import resolve_name
from typing import Any, TypeVar

from asgictl import application as ours
from asgictl.background import BackgroundMessage
from asgictl.errors import ConsumerError, TargetError
from asgictl.turn import Message as OurMessage

C = TypeVar("C", bound=Callable[..., Any])
Content = dict[str, Any]
Found = tuple[Callable[..., Any], dict[str, Any]]  # a consumer, and what its patterns captured
REPLY = "reply!"  # begins the name of every reply channel, and of no other
EVERY_PATH = "/{path:path}"


class _Turn:
    """One message of a connection being handled. waiting: what it and its followers sent to their own connection."""

    def __init__(self, message: OurMessage, known: Iterable[str]) -> None:
        self.message = message
        self.name = REPLY + message.id.rpartition(":")[0]
        self.known = set(known)
        self.waiting: deque[tuple[str, Content]] = deque()


_turn: ContextVar[_Turn | None] = ContextVar("asgictl_channels1_turn", default=None)


class Channel:
    """A background channel, or a connection's reply channel. Raises as asgictl.Channel does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def send(self, content: Content, immediately: bool = False) -> None:
        """Send a dict; to a reply channel text or bytes, and from the connection's own consumers accept or close."""
        turn = _turn.get()
        own = turn.message if turn and turn.name == self.name else None
        if not self.name.startswith(REPLY):
            if turn and content.get("reply_channel") == turn.name:
                ours.check_known(self.name, turn.known)
                turn.waiting.append((self.name, content))
            else:
                ours.Channel(self.name).send(content, immediately=immediately)
        elif own is None:
            _send_to(self.name, content, immediately)
        else:
            accept, close, has_frame = content.get("accept"), content.get("close"), bool(_frame(content))
            if accept or (accept is None and has_frame and own.is_waiting):
                own.accept()
            if has_frame:
                own.reply(**_frame(content), immediately=immediately)
            if close or accept is False:
                own.close(1000 if close in (True, None, False) else close)


class Group:
    """A named set of connections."""

    def __init__(self, name: str) -> None:
        self.name = ours.group_name(name)

    def add(self, channel: Channel | str) -> None:
        """Add the connection whose event is being handled, once that is committed. Raises ConsumerError for another."""
        _own(channel).join(self.name)

    def discard(self, channel: Channel | str) -> None:
        """End its membership. Raises ConsumerError for another connection's channel."""
        _own(channel).leave(self.name)

    def send(self, content: Content, immediately: bool = False) -> None:
        """Send "text" or "bytes" to every member."""
        _send_to(self.name, content, immediately)


class Message:
    """What a consumer is called with: `content`, also by key, and the connection's sessions."""

    def __init__(self, content: Content, channel: str, message: OurMessage | None) -> None:
        self.content = content
        self.channel = Channel(channel)
        self.reply_channel = Channel(content["reply_channel"]) if "reply_channel" in content else None
        self.get, self.keys, self.values, self.items = content.get, content.keys, content.values, content.items
        self._message = message

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __contains__(self, key: str) -> bool:
        return key in self.content

    @property
    def _ours(self) -> OurMessage:
        if self._message is None:
            raise ConsumerError(
                f"a message of channel {self.channel} has a session and a user only when a consumer of the connection"
                " sent it, with its message.content['reply_channel']"
            )
        return self._message

    @property
    def channel_session(self) -> dict[str, Any]:
        """The connection's state."""
        return self._ours.state

    @property
    def http_session(self) -> Any:
        """Django's session of the handshake's cookie."""
        return self._ours.session

    @property
    def user(self) -> Any:
        """That session's user."""
        return self._ours.user


class Route:
    """Takes a channel's messages; made by route()."""

    def __init__(self, channel: str, consumer: Callable[..., Any] | str, **filters: str) -> None:
        self.channels = {channel}
        self.consumer = _resolved(consumer)
        self._filters = _compiled(filters)
        if not callable(self.consumer) or isinstance(self.consumer, type) or ours.is_async(self.consumer):
            raise TargetError(
                f"route({channel!r}, {consumer!r}): a consumer is a function, not a class or an async def"
            )

    def find(self, channel: str, content: Content) -> Found | None:
        """Return the consumer of a message, if this route takes it."""
        matches = _matches(self._filters, content) if channel in self.channels else None
        return None if matches is None else (self.consumer, _captured(matches))


class Include:
    """Takes what its routes take; made by include(). Its routes see what stands behind what its patterns matched."""

    def __init__(self, routing: Any, **filters: str) -> None:
        routing = _resolved(routing)
        pairs = routing.items() if isinstance(routing, Mapping) else ()
        self._routes = [Route(*pair) for pair in pairs] or list(routing)
        if not all(isinstance(each, Route | Include) for each in self._routes):
            raise TargetError("a Channels 1 routing list holds route(...) and include(...) of asgictl.channels1 alone")
        self.channels: set[str] = {name for each in self._routes for name in each.channels}
        self._filters = _compiled(filters)

    def find(self, channel: str, content: Content) -> Found | None:
        """Return the consumer of a message, of the first route that takes it."""
        matches = _matches(self._filters, content)
        if matches is None:
            return None
        rest = {name: content[name][match.end() :] for name, match in matches.items()}
        for each in self._routes:
            if found := each.find(channel, {**content, **rest}):
                return found[0], {**_captured(matches), **found[1]}
        return None


route, include = Route, Include


def application(
    routing: Any, *, http: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None
) -> ours.Application:
    """Return a routing list (or dict, or the dotted name of one) as an Application; http: as Application has it.

    Raises TargetError for routes of http.*: requests go to a WSGI or ASGI application.
    """
    root = Include(routing)
    if requests := [name for name in root.channels if name.startswith("http.")]:
        raise TargetError(
            f"route({requests[0]!r}, ...): no consumer takes requests; give application(http=) a WSGI one"
        )
    kinds = {kind: f"websocket.{kind}" for kind in ("connect", "receive", "disconnect")}
    background = {name: partial(_run_job, root) for name in root.channels.difference(kinds.values())}
    consumers: dict[str, Any] = {
        kind: partial(_run, root, name, background)
        for kind, name in kinds.items()
        if name in root.channels or kind == "connect"  # which makes the reply channel known
    }
    return ours.Application(http, [ours.path(EVERY_PATH, **consumers)], background=background)


def enforce_ordering(consumer: Any = None, slight: bool = False) -> Any:
    """Do nothing, with or without arguments: order is always kept."""
    return consumer or (lambda consumer: consumer)


def _as_it_is(consumer: C) -> C:
    """Do nothing: every message has its sessions and its user, which are loaded when they are asked for."""
    return consumer


channel_session = http_session = http_session_user = channel_session_user = channel_session_user_from_http = _as_it_is
channel_and_http_session = channel_and_http_session_user_from_http = _as_it_is


def _run(root: Include, channel: str, known: Iterable[str], message: OurMessage) -> None:
    turn = _Turn(message, known)
    token = _turn.set(turn)
    try:
        if channel == "websocket.connect":
            message.join(turn.name)
            if channel not in root.channels:
                message.accept()
        turn.waiting.append((channel, _content(channel, message, turn.name)))
        while turn.waiting:
            channel, content = turn.waiting.popleft()
            if found := root.find(channel, content):
                found[0](Message(content, channel, message), **found[1])
            elif channel == "websocket.connect" and channel in root.channels:
                message.close()  # no route has this path
    finally:
        _turn.reset(token)


def _run_job(root: Include, message: BackgroundMessage) -> None:
    if found := root.find(message.channel, message.content):
        found[0](Message(message.content, message.channel, None), **found[1])


def _content(channel: str, message: OurMessage, name: str) -> Content:
    """Return what Channels 1's message format has for a WebSocket's event; the scope's part is in each of them."""
    scope = message.scope
    content: Content = {
        "reply_channel": name,
        "path": scope.local_path,
        "root_path": scope.root_path,
        "scheme": scope.scheme,
    }
    content |= {"query_string": scope.query_string, "headers": scope.headers, "client": scope.client}
    if channel == "websocket.receive":
        content |= {"bytes": message.data} if message.text is None else {"text": message.text}
    elif channel == "websocket.disconnect":
        content["code"] = message.code
    return content


def _own(channel: Channel | str) -> OurMessage:
    turn = _turn.get()
    if turn is None or turn.name != str(channel):
        raise ConsumerError(
            f"only a consumer of the connection {channel} can add it to a group, or discard it: send to its channel"
            " what makes the client ask for that, or do it in `connect`"
        )
    return turn.message


def _send_to(group: str, content: Content, immediately: bool) -> None:
    frame = _frame(content)
    if not frame or content.get("close") or content.get("accept"):
        raise ConsumerError(f"what can be sent to others is text or bytes, not {sorted(content)}")
    ours.Group(group).send(**frame, immediately=immediately)


def _frame(content: Content) -> dict[str, Any]:
    return {
        ours_: content[theirs]
        for theirs, ours_ in (("text", "text"), ("bytes", "data"))
        if content.get(theirs) is not None
    }


def _resolved(named: Any) -> Any:
    """Return what a dotted name names; raises TargetError when there is no such thing."""
    if not isinstance(named, str):
        return named
    try:
        return resolve_name(named)
    except (ValueError, AttributeError, ModuleNotFoundError) as error:
        raise TargetError(f"{named!r} in a routing list cannot be imported: {error}") from error


def _compiled(filters: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    try:
        return {name: re.compile(pattern) for name, pattern in filters.items()}
    except re.error as error:
        raise TargetError(f"a routing list has a pattern that is none: {error.pattern!r}: {error}") from None


def _matches(filters: Mapping[str, re.Pattern[str]], content: Content) -> dict[str, re.Match[str]] | None:
    """Match each field that has a pattern, from its beginning; None unless all do."""
    found = {}
    for name, pattern in filters.items():
        value = content.get(name)
        match = pattern.match(value) if isinstance(value, str) else None
        if match is None:
            return None
        found[name] = match
    return found


def _captured(matches: Mapping[str, re.Match[str]]) -> dict[str, Any]:
    return {name: value for match in matches.values() for name, value in match.groupdict().items()}
