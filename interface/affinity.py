"""Which worker is to have the events of an ASGI application: requests that follow one another may find its state again.

By connection, it is the worker that has answered there before. By client, rendezvous hashing of the client's address: a
worker that goes moves its own clients, and no other's. A worker that takes no new events refuses one, which goes on at
once: to any worker, or to the client's next one.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from asgictl.layers.base import EventLayer
from asgictl.wire.messages import Scope

CLIENTS = 4096  # whose worker is remembered


class Connected(Protocol):
    """A request or a handshake. home: the worker that has answered on its connection last, "" before any has."""

    home: str


class Route(Protocol):
    """To one worker, named by its event loop's inbox."""

    def home(self, channel: str) -> str:
        """Return who is to have an event of this channel, "" for any."""

    def refused(self, again: Callable[[], None]) -> None:
        """It takes no new events: call again() once home() knows another."""


class ByConnection:
    """To who answered last on this connection."""

    def __init__(self, client: Connected) -> None:
        self._client = client

    def home(self, _channel: str) -> str:
        return self._client.home

    def refused(self, again: Callable[[], None]) -> None:
        self._client.home = ""
        again()


class ByClient:
    """To who comes first for this address among those who take new events."""

    def __init__(self, address: str, layer: EventLayer) -> None:
        self._address = address
        self._layer = layer

    def home(self, channel: str) -> str:
        return first(self._address, self._layer.homes(channel))

    def refused(self, again: Callable[[], None]) -> None:
        self._layer.find_homes(again)


@lru_cache(CLIENTS)
def first(address: str, homes: tuple[str, ...]) -> str:
    """Return the worker whose hash with this address is the highest (rendezvous hashing), "" when there is none."""
    return max(homes, key=lambda home: blake2b(f"{address} {home}".encode(), digest_size=8).digest(), default="")


def route_of(affinity: str, client: Connected, scope: Scope, layer: EventLayer) -> Route:
    """Return the route of a request or a handshake. A client without an address, on a Unix socket, has a connection."""
    if affinity == "client" and scope.client:
        return ByClient(scope.client[0], layer)
    return ByConnection(client)
