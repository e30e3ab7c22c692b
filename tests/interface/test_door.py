"""What stands before an application whose server cannot drain."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.interface import door as module
from asgictl.interface.door import Door
from tests.conftest import scenario

Messages = list[MutableMapping[str, Any]]
LIMITS = Limits(drain_seconds=0.3)
GOING = {"type": "websocket.close", "code": 1012}


class Client:
    """One connection, as a server has it."""

    def __init__(self, door: Door, type: str = "websocket", **scope: Any) -> None:
        self.incoming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.sent: Messages = []
        scope = {"type": type, "path": "/a b", "raw_path": b"/a%20b", **scope}
        self.running = asyncio.ensure_future(door(scope, self.incoming.get, self.send))
        if type == "websocket":
            self.incoming.put_nowait({"type": "websocket.connect"})

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1012})


class Served:
    """An application that accepts, and notes what it hears."""

    def __init__(self, accepts: bool = True) -> None:
        self.accepts = accepts
        self.heard: Messages = []
        self.opened = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.heard.append(await receive())
        if self.accepts:
            await send({"type": "websocket.accept"})
        self.opened.set()
        while self.heard[-1]["type"] != "websocket.disconnect":
            self.heard.append(await receive())
        await send({"type": "websocket.send", "text": "too late"})


@scenario
async def test_a_scope_has_its_root_path() -> None:
    scopes: Messages = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    await Client(Door(application, "/below", LIMITS), "http", root_path="/of-a-client").running
    assert scopes == [{"type": "http", "root_path": "/below", "path": "/below/a b", "raw_path": b"/below/a%20b"}]


@scenario
async def test_an_open_socket_is_closed_with_1012_and_waits_for_its_clients_answer() -> None:
    served = Served()
    door = Door(served, "", LIMITS)
    client = Client(door)
    await served.opened.wait()
    door.close()
    door.close()
    draining = asyncio.ensure_future(door.drain(10))
    while GOING not in client.sent:  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)
    client.incoming.put_nowait({"type": "websocket.receive", "text": "crossing"})
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    client.leave()
    await draining
    await client.running
    assert [message["type"] for message in served.heard] == ["websocket.connect", "websocket.disconnect"]
    assert served.heard[-1]["code"] == 1012
    assert client.sent == [{"type": "websocket.accept"}, GOING]


@scenario
async def test_a_client_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    served = Served()
    door = Door(served, "", LIMITS)
    client = Client(door)
    await served.opened.wait()
    door.close()
    await client.running
    assert client.sent[-1] == GOING


@pytest.mark.parametrize("comes_late", [False, True])
@scenario
async def test_a_handshake_is_answered_before_its_socket_is_closed(comes_late: bool) -> None:
    answering = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answering.wait()
        await send({"type": "websocket.accept"})
        await receive()

    door = Door(application, "", LIMITS)
    client = None if comes_late else Client(door)
    await asyncio.sleep(0)
    door.close()
    client = client or Client(door)
    await asyncio.sleep(0.05)
    assert client.sent == []
    answering.set()
    while GOING not in client.sent:  # noqa: ASYNC110 - within the scenario's deadline
        await asyncio.sleep(0.01)
    client.leave()
    await client.running
    assert client.sent == [{"type": "websocket.accept"}, GOING]


@scenario
async def test_a_socket_that_ends_by_itself_leaves_nothing_behind() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        asyncio.ensure_future(receive()).cancel()
        await send({"type": "websocket.close", "code": 4000})

    door = Door(application, "", LIMITS)
    client = Client(door)
    await client.running
    door.close()
    await door.drain(10)
    assert client.sent[-1] == {"type": "websocket.close", "code": 4000}


@scenario
async def test_a_cancelled_read_loses_no_message() -> None:
    heard: Messages = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        reading.cancel()
        heard.append(await receive())

    client = Client(Door(application, "", LIMITS))
    await asyncio.sleep(0)
    client.incoming.put_nowait({"type": "websocket.receive", "text": "kept"})
    await client.running
    assert heard == [{"type": "websocket.receive", "text": "kept"}]


@scenario
async def test_requests_in_hand_are_waited_for_until_the_deadline() -> None:
    ending = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await ending.wait()

    door = Door(application, "", LIMITS)
    client = Client(door, "http")
    await asyncio.sleep(0)
    await door.drain(0.01)
    assert not client.running.done()
    draining = asyncio.ensure_future(door.drain(10))
    ending.set()
    await draining
    await client.running


@scenario
async def test_an_applications_own_oserror_is_not_hidden() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionError("a database is away")

    with pytest.raises(ConnectionError, match="database"):
        await Client(Door(application, "", LIMITS)).running
