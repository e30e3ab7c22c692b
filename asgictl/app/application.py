"""What a user declares: an Application and its WebSocket paths."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from asgictl.app.message import BackgroundMessage, Message
from asgictl.app.outcome import Depths
from asgictl.app.sending import channel_name
from asgictl.errors import ConsumerError, TargetError
from asgictl.wire.manifest import Manifest, Path
from asgictl.wire.messages import VERSION, plain
from asgictl.wire.routing import compile_pattern, is_below, longest_first, pool_suffix

Consumer = Callable[[Message], Awaitable[None] | None]
BackgroundConsumer = Callable[[BackgroundMessage], Awaitable[None] | None]
# What a library adds, as asgictl.django does, before TARGET makes its Application: background channels, and HTTP paths.
declared: dict[str, BackgroundConsumer] = {}
declared_mounts: dict[str, Callable[..., Any]] = {}


class Route:
    """One WebSocket path and its consumers; made by path(). kinds: its events that go to a worker."""

    def __init__(
        self, pattern: str, consumers: Mapping[str, Consumer | None], pool: str = "", at_most_once: bool = False
    ) -> None:
        self.pattern = pattern
        self.pool: str = pool_suffix(pool)
        self.at_most_once = at_most_once
        self.consumers: dict[str, Consumer] = {
            kind: consumer for kind, consumer in consumers.items() if consumer is not None
        }
        # A connect goes there for a disconnect consumer too: its commit leaves the last will.
        self.kinds: set[str] = {*self.consumers, *(["connect"] if "disconnect" in self.consumers else [])}
        self.async_kinds: set[str] = {kind for kind, consumer in self.consumers.items() if is_async(consumer)}
        self._match = compile_pattern(pattern).fullmatch

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters in `path`, or None if it does not match."""
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
            raise TargetError(f"path({pattern!r}, {kind}=...): a consumer must be a function, not {consumer!r}")
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
                    f"Application(http={{{prefix!r}: {mounted!r}}}): a prefix must start with / and name a callable"
                )
        for prefix in pools or ():
            if not prefix.startswith("/"):
                raise TargetError(f"Application(pools={{{prefix!r}: ...}}): a prefix must start with /")
        self.http: dict[str, Callable[..., Any]] = longest_first(declared_mounts | dict(mounts))
        self.pools: dict[str, str] = longest_first(
            {prefix: pool_suffix(pool) for prefix, pool in (pools or {}).items()}
        )
        self.websocket: Callable[..., Any] | tuple[()] = websocket if callable(websocket) else ()
        self.routes: tuple[Route, ...] = () if callable(websocket) else tuple(websocket)
        for route in self.routes:
            if not isinstance(route, Route):
                raise TargetError(
                    f"Application(websocket=[...]) takes path(...), not {route!r}; else it is one ASGI application"
                )
        self.background: dict[str, BackgroundConsumer] = {
            plain(name): consumer for name, consumer in (declared | dict(background or {})).items()
        }
        for name, consumer in self.background.items():
            try:
                channel_name(name)
            except ConsumerError as error:
                raise TargetError(f"Application(background=...): {error}") from None
            if not callable(consumer):
                raise TargetError(
                    f"Application(background={{{name!r}: ...}}): a consumer must be a function, not {consumer!r}"
                )
        self.depths: Depths = Depths(self.background)
        self.route: Callable[[str], tuple[Route, dict[str, str]] | None] = lru_cache(maxsize=1024)(self._route)

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


def manifest_of(application: Application, release: str, mounts: Mapping[str, bool] | None = None) -> Manifest:
    """Describe an application. mounts: as Manifest has it."""
    paths = [
        Path(
            route.pattern,
            "connect" in route.kinds,
            "receive" in route.kinds,
            "disconnect" in route.kinds,
            route.pool,
            route.at_most_once,
        )
        for route in application.routes
    ]
    is_asgi, background = callable(application.websocket), sorted(application.background)
    return Manifest(
        VERSION, release, bool(application.http), paths, application.pools, is_asgi, background, dict(mounts or {})
    )
