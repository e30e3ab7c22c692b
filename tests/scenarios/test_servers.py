"""Each server hosts both modes alike, but for what docs/servers.md says."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asgictl.config import SERVERS
from asgictl.telemetry.controller_client import PUSH_SECONDS
from tests.conftest import MODES, Machine, new_machine, until
from tests.scenarios.asgi_project import response_of, told
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_http import client

APPLICATION = """
import asyncio, json, os
from pathlib import Path
from asgictl import Application, path

START, BODY = "http.response.start", "http.response.body"

def note(name, said):
    Path(name + ".part").write_text(str(said))
    os.replace(name + ".part", name)

async def there(name):
    while not Path(name).exists():
        await asyncio.sleep(0.02)

async def http(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shut-down", "")
        await send({"type": "lifespan.shutdown.complete"})
        return
    name, query = scope["path"].removeprefix(scope["root_path"]), scope["query_string"].decode()
    body, more = b"", name != "/asked"
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    if name == "/seen":
        keys = ("client", "scheme", "root_path", "path", "raw_path")
        body = json.dumps({key: scope[key] for key in keys}, default=bytes.decode).encode()
    elif name == "/parts":
        await send({"type": START, "status": 200, "headers": []})
        await send({"type": BODY, "body": b"first", "more_body": True})
        note("begun-" + query, "")
        await there("go-" + query)
        await send({"type": BODY, "body": b"last"})
        return
    elif name == "/left":
        note("waits-" + query, "")
        note("heard-" + query, (await receive())["type"])
        return
    await send({"type": START, "status": 200, "headers": [(b"server", b"mine"), (b"x-a", b"1"), (b"x-a", b"2")]})
    await send({"type": BODY, "body": body})

def join(message):
    if message.query_string == b"headers":
        message.accept(headers=[(b"x-mine", b"1")])
    else:
        message.accept(subprotocol="b" if message.subprotocols else None)

def say(message):
    if message.text and message.text.startswith("close "):
        message.close(int(message.text[6:]), "because")
    else:
        message.reply(text=message.text, data=message.data)

def left(message):
    note("left-" + message.query_string.decode(), message.code)

app = Application(http=http, websocket=[path("/ws", connect=join, receive=say, disconnect=left)])
"""
PROXY = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https")


@pytest.fixture(scope="module", params=[(server, mode) for server in SERVERS for mode in MODES], ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    server, mode = request.param
    with new_machine() as made:
        made.directory = tmp_path_factory.mktemp("servers")
        (made.directory / "served.py").write_text(APPLICATION)
        made.mode = mode
        options = ("--root-path", "/below", "--max-message-bytes", "1000")
        said = made.start("served:app", "--server", server, "--mode", mode, "--workers", "1", *options)
        assert f" on {server}" in said
        yield made


def server_of(site: Machine) -> str:
    return str(site.status()["server"])


def by_server(site: Machine, uvicorn: Any, daphne: Any, hypercorn: Any) -> Any:
    """Return what docs/servers.md expects of the one that runs."""
    return {"uvicorn": uvicorn, "daphne": daphne, "hypercorn": hypercorn}[server_of(site)]


def opened(site: Machine, query: str = "", **options: Any) -> Any:
    return connect(f"{site.ws}/ws?{query}", compression=None, **options)


def test_a_request_has_its_path_and_its_proxys_client(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /seen HTTP/1.1", *PROXY)
        found = json.loads(response_of(raw)[1])
    assert found.pop("client")[0] == "9.9.9.9"
    assert found == {"scheme": "https", "root_path": "/below", "path": "/below/seen", "raw_path": "/below/seen"}


def test_headers_are_the_applications_own(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /echo HTTP/1.1")
        headers = response_of(raw)[0].headers
    assert (headers.get_all("server"), headers.get_all("x-a")) == (["mine"], ["1", "2"])
    assert ("date" in headers) == by_server(site, True, False, True)


def test_a_server_with_protocols_of_its_own_goes_by_asgi(site: Machine) -> None:
    """And uvicorn never, in any test: tests.conftest looks at each instance before it is stopped."""
    get(site.url + "/echo", b"x")
    if (server := server_of(site)) == "uvicorn":
        time.sleep(2 * PUSH_SECONDS)
        assert set(site.adapted()[server]) == {0.0}
    else:
        until(lambda: sum(site.adapted()[server]) > 0, "requests that came by ASGI's messages are counted")


@pytest.mark.parametrize("size", [0, 3, 300_000])
def test_a_body_comes_back(site: Machine, size: int) -> None:
    assert get(site.url + "/echo", b"x" * size)[2] == b"x" * size


def test_a_body_is_asked_for(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /asked HTTP/1.1", "Content-Length: 3", "Expect: 100-continue")
        first = raw.socket.recv(1000)
    assert first.startswith(b"HTTP/1.1 100 ") == by_server(site, False, True, True)


def test_a_response_arrives_in_parts(site: Machine) -> None:
    assert site.directory
    with client(site) as raw:
        raw.send("GET /parts?stream HTTP/1.1")
        raw.hear(b"first")
        (site.directory / "go-stream").touch()
        raw.hear(b"last")


def test_a_client_that_leaves_is_told_of(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /left?http HTTP/1.1")
        told(site, "waits-http")
    assert told(site, "heard-http") == "http.disconnect"
    with opened(site, "cut") as ws:
        ws.send("here")
        assert ws.recv(SECONDS) == "here"
        ws.socket.shutdown(2)
    assert told(site, "left-cut") == by_server(site, "1005", "1006", "1006")


def test_a_socket_echoes_and_closes_both_ways(site: Machine) -> None:
    with opened(site, "client", subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        for frame in ("text", b"\0\xff", "x" * 1000):
            ws.send(frame)
            assert ws.recv(SECONDS) == frame
        ws.close(4001, "bye")
    assert told(site, "left-client") == by_server(site, "4001", "4001", "1006")
    with opened(site, "own") as ws:
        ws.send("close 4002")
        assert closed_with(ws) == 4002
        assert ws.close_reason == "because"


def test_an_empty_message_is_a_message(site: Machine) -> None:
    with opened(site) as ws:
        ws.send("")
        ws.send("next")
        assert ws.recv(SECONDS) == by_server(site, "", "next", "")


def test_headers_of_an_accepted_handshake(site: Machine) -> None:
    with opened(site, "headers") as ws:
        assert ws.response
        assert ws.response.headers.get("x-mine") == by_server(site, "1", None, "1")


def test_a_handshake_is_refused_with_its_status(site: Machine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(site.ws + "/nowhere")
    assert refused.value.response.status_code == by_server(site, 404, 403, 404)


def test_messages_are_compressed_only_where_it_cannot_be_turned_off(site: Machine) -> None:
    with connect(site.ws + "/ws") as ws:
        assert bool(ws.protocol.extensions) == by_server(site, False, False, True)


def test_too_large_a_message_closes_with_1009(site: Machine) -> None:
    with opened(site) as ws:
        ws.send("x" * 1001)
        assert closed_with(ws) == 1009


def holder(site: Machine) -> int:
    """The process that supervisord knows as the one that holds connections; 0 while it is not ready."""
    status = site.status()
    if not any(report["role"] in ("interface", "server") for report in status["ready"]):
        return 0
    return next(int(p["pid"]) for p in status["processes"] if p["role"] in ("interface", "server"))


def ready_again(site: Machine, before: int) -> Callable[[], bool]:
    return lambda: holder(site) not in (0, before)


def test_sigterm_closes_sockets_lets_requests_end_and_exits_with_0(site: Machine) -> None:
    """As the last one of a site: its process is replaced."""
    assert site.directory
    before = holder(site)
    with client(site) as raw, opened(site, "stop") as ws:
        raw.send("GET /parts?stop HTTP/1.1")
        raw.hear(b"first")
        ws.send("open")
        assert ws.recv(SECONDS) == "open"
        os.kill(before, signal.SIGTERM)
        assert closed_with(ws) == 1012
        (site.directory / "go-stop").touch()
        raw.hear(b"last")
    assert told(site, "left-stop") == "1012"
    until(lambda: not Path(f"/proc/{before}").exists(), "it ends", SECONDS)
    if site.mode == "inprocess":
        told(site, "shut-down")
    until(ready_again(site, before), "supervisord starts another", SECONDS)
    exits = re.findall(r"exited: (?:interface|server)\S* \((.*?);", site.log("supervisord"))
    assert exits == ["exit status 0"]
    if site.mode == "split":
        assert "before the last turns of" not in site.log("interface-00")
