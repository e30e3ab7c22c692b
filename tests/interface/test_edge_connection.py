"""A connection's reads in slices, its holding, writers that stall, and its end; without a protocol."""

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from asgictl.interface import limits as bounds
from asgictl.interface.edge_connection import EdgeConnection, addresses
from asgictl.interface.limits import SLICE_BYTES
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.edges import Backend, Server, Transport

DATA = bytes(range(256)) * (SLICE_BYTES // 64)  # four slices


class Sliced(EdgeConnection):
    """Notes its slices, and takes as many as it may. leaves: bytes of each that it gives back."""

    def __init__(self, server: Server, most: int = 1000) -> None:
        super().__init__(server.edge, server.state)
        server.edge.adopt(server.config, server.state)
        self.slices: list[bytes] = []
        self.most = most
        self.leaves = 0
        self.has_room = True
        self.told: list[str] = []

    def parse(self, data: bytes) -> int:
        left, self.leaves = self.leaves, 0
        self.slices.append(data[: len(data) - left])
        return left

    def takes_more(self) -> bool:
        return len(self.slices) < self.most

    def reads_on(self) -> bool:
        return self.has_room

    def resumed(self) -> None:
        self.told.append("resumed")


def sliced(*, most: int = 1000, is_secure: bool = False) -> tuple[Sliced, Transport, Server]:
    server = Server(Backend())
    made = Sliced(server, most)
    transport = Transport(made, is_secure=is_secure)
    made.connection_made(cast(asyncio.Transport, transport))
    return made, transport, server


@scenario
async def test_a_small_read_is_parsed_at_once_and_as_it_is() -> None:
    made, transport, _ = sliced()
    data = bytes(SLICE_BYTES)
    made.data_received(data)
    assert made.slices[0] is data
    assert transport.is_reading


@scenario
async def test_a_read_is_parsed_in_slices() -> None:
    made, transport, _ = sliced()
    made.data_received(DATA)
    assert b"".join(made.slices) == DATA
    assert {len(part) for part in made.slices} == {SLICE_BYTES}
    assert transport.is_reading


@pytest.mark.parametrize("size", [1, len(DATA)])
@scenario
async def test_nothing_is_kept_of_what_was_parsed(size: int) -> None:
    made, _, _ = sliced()
    made.data_received(DATA[:size])
    assert made._unread == b""


@scenario
async def test_a_turn_ends_when_its_time_is_over_and_nothing_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.interface.limits.TURN_SECONDS", -1)
    made, transport, server = sliced()
    made.data_received(DATA)
    made.data_received(b"more")  # as a transport may that was just paused
    assert (len(made.slices), transport.is_reading, server.edge.held) == (1, False, {made})
    await settled()
    assert b"".join(made.slices) == DATA + b"more"
    assert (transport.is_reading, server.edge.held) == (True, set())


@scenario
async def test_nothing_is_parsed_while_no_more_is_taken() -> None:
    made, transport, _ = sliced(most=1)
    made.data_received(DATA)
    await settled()
    assert (len(made.slices), transport.is_reading) == (1, False)
    made.most = 1000
    made.feed()
    await settled()
    assert (b"".join(made.slices), transport.is_reading) == (DATA, True)


@scenario
async def test_a_small_read_waits_too_while_no_more_is_taken() -> None:
    made, transport, _ = sliced(most=0)
    made.data_received(b"ab")
    made.data_received(b"cd")
    assert (made.slices, transport.is_reading) == ([], False)
    made.most = 1
    made.feed()
    await settled()
    assert (made.slices, transport.is_reading) == ([b"abcd"], True)


@pytest.mark.parametrize("size", [10, len(DATA)])
@scenario
async def test_what_a_parser_gives_back_is_given_to_it_again(size: int) -> None:
    made, _, _ = sliced(most=1)
    made.leaves = 4
    made.data_received(DATA[:size])
    made.most = 1000
    made.feed()
    await settled()
    assert b"".join(made.slices) == DATA[:size]
    assert made._unread == b""


@scenario
async def test_nothing_is_read_while_there_is_no_room() -> None:
    made, transport, _ = sliced()
    made.has_room = False
    made.data_received(b"x")
    made.feed()
    assert not transport.is_reading
    made.has_room = True
    made.feed()
    assert transport.is_reading


@scenario
async def test_what_is_discarded_is_read_all_the_same() -> None:
    made, transport, _ = sliced(most=0)
    made.data_received(DATA)
    assert not transport.is_reading
    made.discard()
    made.data_received(DATA)
    await settled()
    assert (made.slices, made._unread, transport.is_reading) == ([], b"", True)


@scenario
async def test_what_waits_of_a_lost_connection_is_parsed_no_more() -> None:
    made, transport, server = sliced(most=1)
    made.data_received(DATA)
    made.most = 1000
    made.feed()
    transport.lose()
    made.feed()
    await settled()
    assert (len(made.slices), server.state.connections, server.edge.held) == (1, set(), set())


@scenario
async def test_a_closing_transport_is_left_as_it_is() -> None:
    made, transport, _ = sliced(most=0)
    transport.close()
    made.data_received(b"x")
    assert transport.is_reading


# Writers.


@scenario
async def test_a_buffer_that_is_full_for_one_turn_alone_pauses_nobody() -> None:
    made, transport, server = sliced()
    transport.waiting = 10
    made.pause_writing()
    made.resume_writing()
    await settled()
    assert (made.is_paused, made.told, server.edge.stalled.oldest()) == (False, [], None)


@scenario
async def test_what_waits_longer_pauses_until_it_is_taken() -> None:
    made, transport, server = sliced()
    transport.waiting = 10
    made.pause_writing()
    assert not made.is_paused
    await settled()
    assert (made.is_paused, server.edge.stalled.oldest()) == (True, made)
    made.resume_writing()
    assert (made.is_paused, made.told, server.edge.stalled.oldest()) == (False, ["resumed"], None)


@scenario
async def test_a_client_that_takes_nothing_is_cut_off_and_one_that_takes_a_byte_is_not() -> None:
    made, transport, server = sliced()
    transport.waiting = 10
    made.pause_writing()
    await settled()
    transport.waiting = 9
    server.passes(server.edge.stalled, bounds.STALLED_SECONDS)
    assert (transport.told, server.edge.stalled.oldest()) == ([], made)
    server.passes(server.edge.stalled, bounds.STALLED_SECONDS)
    assert transport.told == ["abort"]
    assert server.rejections == {bounds.STALLED: 1}


@scenario
async def test_a_connection_that_is_lost_as_it_pauses_is_not_watched() -> None:
    made, transport, server = sliced()
    transport.waiting = 10
    made.pause_writing()
    transport.lose()
    await settled()
    assert server.edge.stalled.oldest() is None


# Its end.


@scenario
async def test_an_end_closes_the_server_s_side_and_reads_on_for_a_while() -> None:
    made, transport, server = sliced(most=0)
    made.data_received(DATA)
    made.end()
    assert (transport.told, transport.is_reading) == (["eof"], True)
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    assert transport.told == ["eof", "abort"]


@scenario
async def test_a_client_that_still_takes_what_was_written_is_waited_for() -> None:
    made, transport, server = sliced()
    transport.waiting = 10
    made.end()
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    assert (transport.told, server.edge.stalled.oldest()) == (["eof"], made)
    transport.waiting = 0
    server.passes(server.edge.linger, bounds.LINGER_SECONDS)
    assert transport.told == ["eof", "abort"]


@scenario
async def test_tls_cannot_end_one_side() -> None:
    made, transport, _ = sliced(is_secure=True)
    made.end()
    assert transport.told == ["close"]


@pytest.mark.parametrize(("waiting", "told"), [(0, ["close"]), (10, ["eof"])])
@scenario
async def test_what_waits_is_not_lost_by_an_end(waiting: int, told: list[str]) -> None:
    for end in ("finish", "close_idle"):
        made, transport, _ = sliced()
        transport.waiting = waiting
        getattr(made, end)()
        assert transport.told == told


@scenario
async def test_a_connection_is_known_to_the_server_until_it_is_lost() -> None:
    made, transport, server = sliced()
    assert {id(each) for each in server.state.connections} == {id(made)}
    transport.lose()
    assert server.state.connections == set()


def test_a_subclass_says_how_it_parses() -> None:
    base: Any = EdgeConnection(Server(Backend()).edge, None)
    for call in (lambda: base.parse(b""), base.takes_more, base.reads_on):
        with pytest.raises(NotImplementedError):
            call()


# Its addresses.


def of(connected: socket.socket) -> Any:
    class Transported:
        def get_extra_info(self, _name: str) -> socket.socket:
            return connected

    return addresses(cast(asyncio.Transport, Transported()))


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_addresses_are_hosts_and_ports(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("NOT RUN: no IPv6 on this machine")
        listener.listen()
        client.connect(listener.getsockname()[:2])
        with listener.accept()[0] as server:
            assert of(server) == (client.getsockname()[:2], listener.getsockname()[:2])


def test_the_peer_of_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        with listener.accept()[0] as server:
            assert of(server) == (None, (str(tmp_path / "s"), None))


def test_who_has_gone_already_has_no_address() -> None:
    with socket.socket() as never_connected:
        assert of(never_connected) == (None, None)
