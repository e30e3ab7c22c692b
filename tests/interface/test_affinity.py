"""Which worker is to have an event: judged without a layer."""

from collections.abc import Callable
from typing import Any

from asgictl.interface.affinity import ByClient, ByConnection, first, route_of
from asgictl.wire.messages import Scope
from tests.interface.fakes import RecordingRequest

HOMES = ("a.asgi", "b.asgi", "c.asgi", "d.asgi")
ADDRESSES = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]


class Layer:
    """Knows the workers that a test names."""

    def __init__(self, *homes: str) -> None:
        self.known = homes
        self.asked: list[Callable[[], None]] = []

    def homes(self, channel: str) -> tuple[str, ...]:
        return self.known if channel == "http.request" else ()

    def find_homes(self, found: Callable[[], None]) -> None:
        self.asked.append(found)


def scope(client: tuple[str, int] | None = ("1.2.3.4", 5)) -> Scope:
    return Scope("GET", "http", "1.1", "", "/", b"/", b"", [], client, None)


def test_a_worker_that_goes_moves_its_own_clients_and_no_others() -> None:
    before = {address: first(address, HOMES) for address in ADDRESSES}
    for gone in HOMES:
        left = tuple(home for home in HOMES if home != gone)
        moved = {address for address in ADDRESSES if first(address, left) != before[address]}
        assert moved == {address for address in ADDRESSES if before[address] == gone}


def test_a_worker_that_comes_takes_its_share_and_moves_nothing_else() -> None:
    before = {address: first(address, HOMES) for address in ADDRESSES}
    after = {address: first(address, (*HOMES, "e.asgi")) for address in ADDRESSES}
    moved = [address for address in ADDRESSES if after[address] != before[address]]
    assert {after[address] for address in moved} == {"e.asgi"}
    assert 100 < len(moved) < 300, "a fifth"


def test_clients_are_spread_and_the_order_of_the_workers_does_not_matter() -> None:
    shares = [sum(first(address, HOMES) == home for address in ADDRESSES) for home in HOMES]
    assert all(150 < share < 350 for share in shares)
    assert all(first(address, HOMES) == first(address, HOMES[::-1]) for address in ADDRESSES)
    assert first("1.2.3.4", ()) == ""


def test_a_connection_goes_to_who_has_answered_on_it_until_that_refuses() -> None:
    client, again = RecordingRequest(), []
    route = ByConnection(client)
    assert route.home("http.request") == ""
    client.home = "a.asgi"
    assert route.home("http.request") == "a.asgi"
    route.refused(lambda: again.append(route.home("http.request")))
    assert again == [""]


def test_a_client_that_was_refused_goes_on_once_the_workers_were_asked_for_anew() -> None:
    layer: Any = Layer("a.asgi")
    route, again = ByClient("1.2.3.4", layer), []
    assert (route.home("http.request"), route.home("websocket.connect")) == ("a.asgi", "")
    route.refused(lambda: again.append(route.home("http.request")))
    assert again == []
    layer.known = ("b.asgi",)
    layer.asked.pop()()
    assert again == ["b.asgi"]


def test_a_client_without_an_address_has_a_connection() -> None:
    layer: Any = Layer("a.asgi")
    client = RecordingRequest()
    assert isinstance(route_of("client", client, scope(), layer), ByClient)
    assert isinstance(route_of("client", client, scope(None), layer), ByConnection)
    assert isinstance(route_of("connection", client, scope(), layer), ByConnection)
