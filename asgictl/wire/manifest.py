"""What an interface knows of the application, without importing it: published by each worker that is ready."""

from collections.abc import Collection

from msgspec import msgpack

from asgictl.errors import TargetError, UnknownChannel, WireError
from asgictl.wire.messages import BACKGROUND, VERSION, Wire
from asgictl.wire.routing import compile_pattern, is_below


class Path(Wire, frozen=True):
    """A WebSocket path, which of its events go to a worker, and how.

    A connect goes there for a disconnect consumer too: its commit leaves the last will that a killed interface needs.
    pool: the suffix of their channels, "" or ".name". at_most_once: what a worker died of is not run again.
    """

    pattern: str
    connect: bool
    receive: bool
    disconnect: bool
    pool: str = ""
    at_most_once: bool = False


ANY = Path("", connect=True, receive=True, disconnect=True)


class Manifest(Wire, frozen=True):
    """One release of the application. Encoded like a message: fields are only ever appended, with a default.

    pools: of HTTP, prefixes of paths with the suffix of their channel, the longest first. is_asgi: WebSockets of all
    paths go to an ASGI application, each to stay with one worker. background: names of channels, for who sends to them.
    mounts: of HTTP, prefixes of paths, the longest first, and whether ASGI applications serve them, as affinity asks;
    empty when none does.
    """

    version: int
    release: str
    http: bool
    websocket: list[Path]
    pools: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    is_asgi: bool = False
    background: list[str] = []  # noqa: RUF012
    mounts: dict[str, bool] = {}  # noqa: RUF012


def event_channels(manifest: Manifest) -> set[str]:
    """Return the channels of the application's events."""
    found = {f"http.request{pool}" for pool in ("", *manifest.pools.values()) if manifest.http}
    found |= {"websocket.connect"} if manifest.is_asgi else set()
    for path in manifest.websocket:
        kinds = {"connect": path.connect, "receive": path.receive, "disconnect": path.disconnect}
        found |= {f"websocket.{kind}{path.pool}" for kind, is_consumed in kinds.items() if is_consumed}
    return found | {BACKGROUND + name for name in manifest.background}


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode for the `manifest` key."""
    return msgpack.encode(manifest)


def check_known(channel: str, known: Collection[str]) -> None:
    """Raise UnknownChannel for a background channel that is not among the application's."""
    if channel not in known:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise UnknownChannel(
            f"the application has no background channel {channel!r}, {has}: see Application(background=)"
        )


class Router:
    """Finds what a manifest says of a path."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._patterns = [(compile_pattern(path.pattern).fullmatch, path) for path in manifest.websocket]

    @classmethod
    def decode(cls, data: bytes) -> "Router":
        """Decode the `manifest` key; raises WireError."""
        try:
            manifest = msgpack.decode(data, type=Manifest)
        except (ValueError, RecursionError) as error:
            raise WireError(f"the manifest is not one that wire version {VERSION} reads: {error}") from error
        if abs(manifest.version - VERSION) > 1:
            raise WireError(f"the manifest has wire version {manifest.version}, ours is {VERSION}")
        try:
            return cls(manifest)
        except TargetError as error:
            raise WireError(f"the manifest has a path that this version cannot match: {error}") from error

    def pool(self, path: str) -> str:
        """Return the pool of an HTTP path."""
        for prefix, pool in self.manifest.pools.items():
            if is_below(path, prefix):
                return pool
        return ""

    def is_asgi(self, path: str) -> bool:
        """Whether an ASGI application serves an HTTP path."""
        mounts = self.manifest.mounts
        for prefix, is_asgi in mounts.items():
            if is_below(path, prefix):
                return is_asgi
        return mounts.get("/", False)  # as Application.mount has it

    def match(self, path: str) -> Path | None:
        """Return the first WebSocket path whose pattern matches, or None."""
        if self.manifest.is_asgi:
            return ANY
        for fullmatch, found in self._patterns:
            if fullmatch(path):
                return found
        return None
