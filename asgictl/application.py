"""What a user declares: an Application, its WebSocket paths, and groups."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from asgictl import outcome
from asgictl.errors import ConsumerError, TargetError
from asgictl.messages import Broadcast

if TYPE_CHECKING:
    from asgictl.turn import Message

T = TypeVar("T")
Consumer = Callable[["Message"], Awaitable[None] | None]
NAME_LENGTH = 100  # the Channels specification's limit for a group's name


class Group:
    """A named set of WebSockets. `message.join(name)` adds to it; `send` reaches every member."""

    def __init__(self, name: str) -> None:
        self.name = group_name(name)

    def send(self, *, text: str | None = None, data: bytes | None = None, immediately: bool = False) -> None:
        """Send one frame to every member, when the event being handled commits: once, however often it runs.

        immediately: send it now; should the handler run again, it is sent again.
        Raises ConsumerError outside of a consumer or view, and unless exactly one of text and data is given.
        """
        broadcast = Broadcast(self.name, outcome.frame_of(text, data))
        if immediately:
            outcome.current().send_now(broadcast)
        else:
            outcome.current().broadcasts.append(broadcast)


def group_name(name: str) -> str:
    """Return the name; raises ConsumerError unless it is 1 to 100 characters."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
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


def is_async(consumer: Consumer) -> bool:
    """Whether a consumer's calls are to be awaited."""
    called = getattr(consumer, "__call__", None)  # noqa: B004 - an object's, not whether there is one
    return inspect.iscoroutinefunction(consumer) or inspect.iscoroutinefunction(called)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile "/ws/{room}": a parameter is one segment of the path. Raises TargetError for a malformed pattern."""
    if not pattern.startswith("/"):
        raise TargetError(f"path({pattern!r}): a path starts with /")
    parts = re.split(r"\{(\w+)\}", pattern)
    source = "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    try:
        return re.compile(source)
    except re.error as error:
        raise TargetError(f"path({pattern!r}): {error}") from None


def pool_suffix(pool: str) -> str:
    """Return what a pool adds to the names of its channels; raises TargetError for a name that is none."""
    if not isinstance(pool, str) or not re.fullmatch(r"[a-z0-9_-]{0,32}", pool):
        raise TargetError(f"pool={pool!r}: up to 32 of a-z, 0-9, - and _")
    return pool and f".{pool}"


def is_below(path: str, prefix: str) -> bool:
    """Whether an HTTP path is a prefix, or lies below it."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def longest_first(prefixes: Mapping[str, T]) -> dict[str, T]:
    """Return a mapping of path prefixes in the order in which to try them."""
    return dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))


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
    Raises TargetError for anything else.
    """

    def __init__(
        self,
        http: Callable[..., Any] | Mapping[str, Callable[..., Any]] | None = None,
        websocket: Sequence[Route] | Callable[..., Any] = (),
        pools: Mapping[str, str] | None = None,
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
