"""Who is the master, as Sentinels say, and what becomes of connections to another node."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

import hiredis
import pytest
import redis
from redis.sentinel import MasterNotFoundError

from asgictl.layers import RedisChannelLayer
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.link import Link, pack
from asgictl.layers.redis.sentinels import Node, Sentinels
from asgictl.layers.redis.sync_connection import SyncConnection
from tests.conftest import scenario, until
from tests.sentinels import SERVICE, Watched, watched

OLD, NEW = Node("10.0.0.1", 1), Node("10.0.0.2", 2)


def sentinel(named: Node | None, epoch: int = 0, *, state_of: Node | None = None, is_down: bool = False) -> Any:
    """Return a client of a Sentinel that says this."""
    shown = state_of or named or OLD
    state = {"ip": shown.host, "port": shown.port, "config-epoch": epoch, "is_sdown": is_down, "is_odown": False}
    answers = {"SENTINEL GET-MASTER-ADDR-BY-NAME": named, "SENTINEL MASTER": state}
    return MagicMock(execute_command=lambda command, _service: answers[command])


def failing(error: Exception) -> Any:
    return MagicMock(execute_command=MagicMock(side_effect=error))


@pytest.mark.parametrize(
    ("clients", "master"),
    [
        ([sentinel(OLD)], OLD),
        ([sentinel(OLD, 1), sentinel(NEW, 2), sentinel(OLD, 1)], NEW),
        ([sentinel(OLD, 1, is_down=True), sentinel(OLD, 1)], OLD),
        ([sentinel(NEW, 2, state_of=OLD, is_down=True), sentinel(OLD, 1)], NEW),
        ([failing(redis.ConnectionError("away")), sentinel(None), sentinel(NEW)], NEW),
    ],
    ids=["one", "the newest configuration", "down for one of them", "still failing over", "one that is away"],
)
def test_the_newest_configuration_counts(clients: list[Any], master: Node) -> None:
    assert Sentinels("s", clients).discover_master("s") == master


@pytest.mark.parametrize(
    ("clients", "words"),
    [
        ([sentinel(None), sentinel(None)], "none of them knows service 's'"),
        ([sentinel(OLD, 1, is_down=True), sentinel(NEW, 0)], "the master is down"),
        ([failing(redis.ConnectionError("away"))], "no Sentinel names a master: away"),
        ([failing(redis.AuthenticationError("Authentication required."))], "sentinel_password"),
    ],
    ids=["unknown", "down", "away", "password"],
)
def test_why_there_is_no_master_is_told(clients: list[Any], words: str) -> None:
    with pytest.raises(MasterNotFoundError, match=words):
        Sentinels("s", clients).discover_master("s")


def test_who_stops_waiting_for_an_answer_costs_the_others_nothing() -> None:
    sentinels = Sentinels("s", [sentinel(OLD)])
    asked: list[Future[Node]] = [sentinels.ask() for _ in range(2)]
    asked[0].cancel()
    assert asked[1].result(60) == OLD
    assert sentinels.ask().result(60) == OLD


def test_a_connection_to_another_node_is_cut_and_one_to_the_master_is_not() -> None:
    sentinels = Sentinels("s", [sentinel(OLD)])
    pairs = {node: socket.socketpair() for node in (OLD, NEW)}
    held = {node: MagicMock(host=node.host, port=node.port, _sock=pair[0]) for node, pair in pairs.items()}
    for connection in held.values():
        sentinels.hold(connection)
    sentinels.discover_master("s")
    pairs[NEW][1].settimeout(60)
    assert pairs[NEW][1].recv(1) == b""
    pairs[OLD][0].sendall(b"x")
    assert pairs[OLD][1].recv(1) == b"x"
    for each in (*pairs[OLD], *pairs[NEW]):
        each.close()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Watched]:
    with watched() as made:
        yield made


@scenario
async def test_every_connection_leaves_a_node_that_is_the_master_no_more(nodes: Watched) -> None:
    """The old one answers on: nothing else ends its connections while Sentinel has not come to it."""
    before = nodes.master()
    sentinels = endpoint(nodes.url)._sentinels
    assert sentinels
    assert sentinels.discover_master(SERVICE) == ("127.0.0.1", nodes.ports[before])
    other = nodes.ports[1 - before]
    restored: asyncio.Queue[int] = asyncio.Queue()
    link = Link(nodes.url, lambda: note(link, restored))
    await link.start()
    layer = RedisChannelLayer([nodes.url], "moved")
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    blocked = await asyncio.to_thread(SyncConnection, nodes.url)
    blocked.send(pack(("XREAD", "BLOCK", 0, "STREAMS", "absent", "$")))
    with endpoint(nodes.url).client(1) as client:
        ports = [await restored.get(), await asyncio.to_thread(port_of, client)]
        assert ports == [nodes.ports[before]] * 2
        nodes.sentinels[0].execute_command("SENTINEL FAILOVER", SERVICE)
        with pytest.raises((OSError, hiredis.ReplyError)):
            raise await asyncio.to_thread(received, blocked)
        assert await restored.get() == other
        await asyncio.to_thread(until, lambda: port_of(client) == other, "the client has left too")
    await layer.group_send("group", {"type": "x"})
    assert await layer.receive(channel) == {"type": "x"}
    blocked.close()
    await link.stop()


def port_of(client: Any) -> int:
    """Return which node a client is connected to, 0 for none at this moment."""
    with suppress(redis.ConnectionError):
        return int(client.info("server")["tcp_port"])
    return 0


async def note(link: Link, restored: "asyncio.Queue[int]") -> None:
    info = await link.ask("INFO", "server")
    restored.put_nowait(int(info.partition(b"tcp_port:")[2].split()[0]))


def received(connection: SyncConnection) -> Exception:
    try:
        answer = connection.receive()
    except OSError as error:
        return error
    assert isinstance(answer, Exception), answer
    return answer
