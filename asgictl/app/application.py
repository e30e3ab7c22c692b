"""What a user declares: an Application and its WebSocket paths; and what it sends to: groups and channels."""

import inspect
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from asgictl.app import outcome
from asgictl.config import CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, ConsumerError, TargetError, WireError
from asgictl.wire.manifest import Manifest, Path, check_known
from asgictl.wire.messages import VERSION, Broadcast, Job, decode_state, encode_state, plain
from asgictl.wire.routing import compile_pattern, is_below, longest_first, pool_suffix

if TYPE_CHECKING:
    from asgictl.app.background import BackgroundMessage
    from asgictl.app.turn import Message

Consumer = Callable[["Message"], Awaitable[None] | None]
BackgroundConsumer = Callable[["BackgroundMessage"], Awaitable[None] | None]
CONTENT_BYTES = 1 << 20
MOST_DELAY_SECONDS = 366 * 86400
NAME_LENGTH = 100  # the Channels specification's limit for a group's name


class Group:
    """A named set of WebSockets. `message.join(name)` adds to it; `send` reaches every member."""

    def __init__(self, name: str) -> None:
        self.name = group_name(name)

    def send(
        self,
        *,
        text: str | None = None,
        data: bytes | None = None,
        immediately: bool = False,
        if_slow: Literal["close", "drop"] = "close",
    ) -> None:
        """Send one frame to every member, when the event being handled commits: once, however often it runs.

        if_slow: of a member for whom 1 MiB waits already: its socket is closed with 1013, or this frame is dropped for
        it, and counted. immediately: send it now; should the handler run again, it is sent again.
        Outside of a consumer or view, as in a script, it leaves at once: to the Redis of ASGICTL_REDIS, or else that of
        the instance ASGICTL_NAME on this machine; raises RedisError when that cannot be used.
        Raises ConsumerError unless exactly one of text and data is given, and if_slow is one of the two.
        """
        if if_slow not in {"close", "drop"}:
            raise ConsumerError(f"if_slow= is 'close' or 'drop', not {if_slow!r:.60}")
        frame = outcome.frame_of(text, data)
        outcome.send(Broadcast(self.name, frame, if_slow == "drop"), immediately=immediately)


class Channel:
    """A background channel; Application(background={name: consumer}) says who is called with what is sent to it."""

    def __init__(self, name: str) -> None:
        self.name = channel_name(name)

    def send(self, content: dict[str, Any], *, delay_seconds: float = 0, immediately: bool = False) -> None:
        """Send a dict to one of the workers, when the event being handled commits: once, however often it runs.

        content: what MessagePack can carry, at most 1 MiB encoded. delay_seconds: at least so long after the commit,
        at most 366 days. immediately, and outside of an event: as in Group.send.
        Raises UnknownChannel for a name that the application has no consumer for; ChannelFull when 10,000 messages
        wait, delayed ones included (a handler's commit is never refused for that: this call is, by the depth that the
        process knew up to a second ago); ConsumerError for a content or delay that is none.
        """
        job = Job(f"job.{secrets.token_hex(8)}", 1, self.name, encoded(content), milliseconds(delay_seconds))
        current = outcome.current()
        if current is not None and current.depths is not None:
            check_known(self.name, current.depths)
            if current.depths[self.name] >= CHANNEL_CAPACITY:
                raise ChannelFull(self.name, CHANNEL_CAPACITY)
            current.depths[self.name] += 1
        outcome.send(job, immediately=immediately)


def encoded(content: dict[str, Any]) -> bytes:
    """Encode a job's content; raises ConsumerError unless it is a dict that can travel."""
    if not isinstance(content, dict):
        raise ConsumerError(f"a background message is a dict, not {type(content).__name__}")
    try:
        data = encode_state(content)
        if len(data) <= CONTENT_BYTES:
            decode_state(data)  # a key that is no str would be found by nobody but the worker
    except (TypeError, ValueError, OverflowError, RecursionError, WireError) as error:
        raise ConsumerError(f"a background message holds what MessagePack cannot carry: {error}") from error
    if len(data) > CONTENT_BYTES:
        raise ConsumerError(f"a background message is {len(data)} bytes encoded; {CONTENT_BYTES} is the most")
    return data


def milliseconds(seconds: float) -> int:
    """Return a delay, rounded up; raises ConsumerError for one that is none."""
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= MOST_DELAY_SECONDS:
        raise ConsumerError(f"a delay is a number of seconds from 0 to {MOST_DELAY_SECONDS}, not {seconds!r:.60}")
    return math.ceil(seconds * 1000)


def channel_name(name: str) -> str:
    """Return the name; raises ConsumerError for one that the Channels specification does not allow."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,99}", plain(name)):
        raise ConsumerError(f"a channel's name is 1 to 99 of a-z, A-Z, 0-9, -, _ and ., not {name!r:.120}")
    return plain(name)


def group_name(name: str) -> str:
    """Return the name; raises ConsumerError unless it is 1 to 100 characters."""
    if not isinstance(name, str) or not 0 < len(plain(name)) <= NAME_LENGTH:
        raise ConsumerError(f"a group's name is a str of 1 to {NAME_LENGTH} characters, not {name!r:.120}")
    return outcome.encodable(name)


class Route:
    """One WebSocket path and its consumers; made by path()."""

    def __init__(
        self, pattern: str, consumers: Mapping[str, Consumer | None], pool: str = "", at_most_once: bool = False
    ) -> None:
        self.pattern = pattern
        self.pool = pool_suffix(pool)
        self.at_most_once = at_most_once
        self.consumers = {kind: consumer for kind, consumer in consumers.items() if consumer is not None}
        self.async_kinds = {kind for kind, consumer in self.consumers.items() if is_async(consumer)}
        self._match = compile_pattern(pattern).fullmatch

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters that `path` gives, or None when it is another path."""
        found = self._match(path)
        return found.groupdict() if found else None


def is_async(consumer: Consumer | BackgroundConsumer) -> bool:
    """Whether a consumer's calls are to be awaited."""
    called = getattr(consumer, "__call__", None)  # noqa: B004 - an object's, not whether there is one
    return inspect.iscoroutinefunction(consumer) or inspect.iscoroutinefunction(called)


def path(
    pattern: str,
    *,
    connect: Consumer | None = None,
    receive: Consumer | None = None,
    disconnect: Consumer | None = None,
    pool: str = "",
    at_most_once: bool = False,
) -> Route:
    """Route a WebSocket path to consumers, which are called with a Message.

    Without `connect` every handshake is accepted; a `connect` must call message.accept() or message.close().
    Without `receive` frames are dropped. pool: the channels of this path are websocket.receive.<pool> and so on, so
    that workers of its own can serve it. at_most_once: a frame whose worker died is given up, not run again.
    Raises TargetError for a malformed pattern or pool, or a consumer not callable.
    """
    consumers = {"connect": connect, "receive": receive, "disconnect": disconnect}
    for kind, consumer in consumers.items():
        if consumer is not None and not callable(consumer):
            raise TargetError(f"path({pattern!r}, {kind}=...): a consumer is a function, not {consumer!r}")
    return Route(pattern, consumers, pool, at_most_once)


class Application:
    """What TARGET names.

    http: a WSGI or ASGI callable, or a mapping of path prefixes to such callables (the longest prefix wins).
    websocket: a list of path(...), or an ASGI callable.
    pools: a mapping of HTTP path prefixes to names: requests below go to the channel http.request.<name>, so that
    workers of its own can serve them (the longest prefix wins).
    background: a mapping of channels to consumers, which are called with a BackgroundMessage for each that is sent.
    Raises TargetError for anything else.
    """

    def __init__(
        self,
        http: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
        websocket: Sequence[Route] | Callable[..., Any] = (),
        pools: Mapping[str, str] | None = None,
        background: Mapping[str, BackgroundConsumer] | None = None,
    ) -> None:
        mounts = http if isinstance(http, Mapping) else {"/": http} if http is not None else {}
        for prefix, mounted in mounts.items():
            if not prefix.startswith("/") or not callable(mounted):
                raise TargetError(
                    f"Application(http={{{prefix!r}: {mounted!r}}}): a prefix starts with / and is callable"
                )
        for prefix in pools or ():
            if not prefix.startswith("/"):
                raise TargetError(f"Application(pools={{{prefix!r}: ...}}): a prefix starts with /")
        self.http = longest_first(mounts)
        self.pools = longest_first({prefix: pool_suffix(pool) for prefix, pool in (pools or {}).items()})
        self.websocket = websocket if callable(websocket) else ()
        self.routes: tuple[Route, ...] = () if callable(websocket) else tuple(websocket)
        for route in self.routes:
            if not isinstance(route, Route):
                raise TargetError(f"Application(websocket=[...]) takes path(...), not {route!r}")
        self.background = {plain(name): consumer for name, consumer in (background or {}).items()}
        for name, consumer in self.background.items():
            try:
                channel_name(name)
            except ConsumerError as error:
                raise TargetError(f"Application(background=...): {error}") from None
            if not callable(consumer):
                raise TargetError(
                    f"Application(background={{{name!r}: ...}}): a consumer is a function, not {consumer!r}"
                )
        self.depths = dict.fromkeys(self.background, 0)  # how full each was when this process last looked
        self.route = lru_cache(maxsize=1024)(self._route)

    def mount(self, path: str) -> Callable[..., Any] | None:
        """Return the callable that serves this HTTP path."""
        for prefix, mounted in self.http.items():
            if is_below(path, prefix):
                return mounted
        return self.http.get("/")  # `OPTIONS *` and absolute targets have no leading slash

    def _route(self, path: str) -> tuple[Route, dict[str, str]] | None:
        for route in self.routes:
            if (params := route.match(path)) is not None:
                return route, params
        return None


def manifest_of(application: Application, release: str) -> Manifest:
    """Describe an application."""
    paths = [
        Path(
            route.pattern,
            "connect" in route.consumers or "disconnect" in route.consumers,
            "receive" in route.consumers,
            "disconnect" in route.consumers,
            route.pool,
            route.at_most_once,
        )
        for route in application.routes
    ]
    is_asgi, background = callable(application.websocket), sorted(application.background)
    return Manifest(VERSION, release, bool(application.http), paths, application.pools, is_asgi, background)
