"""The demo application's fixed paths and replies."""

import asyncio
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from asgictl.app.run import RunningTurn
from asgictl.demo import NOTES, app, plain, seconds, site
from asgictl.wire.messages import Broadcast, Connect, Receive, Scope, encode_scope
from asgictl.wire.state import decode_state


def ask(path: str, query: str = "", method: str = "GET", body: bytes = b"", **more: str) -> tuple[str, str, bytes]:
    """Return status, content type and body of a request."""
    environ: dict[str, Any] = {
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        **more,
    }
    setup_testing_defaults(environ)
    environ["wsgi.input"] = BytesIO(body)
    started: list[Any] = []

    def start_response(*given: Any) -> Any:
        started.append(given)
        return given.count  # something to call, as the validator asks for

    # The validator is from before PEP 3333, which lets read() be called without a size.
    application: Any = site if path == "/echo" else validator(site)
    answer = application(environ, start_response)
    content = b"".join(answer)
    getattr(answer, "close", int)()
    status, headers = started[0][:2]
    assert dict(headers)["Content-Length"] == str(len(content))
    return status, dict(headers)["Content-Type"], content


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/hello", "", b"Hello, world!"),
        ("/sync", "ms=1", b"slept"),
        ("/cpu", "ms=1", b"burnt"),
        ("/hold", "ms=1", b"held"),
    ],
)
def test_a_view_answers_in_plain_text(path: str, query: str, body: bytes) -> None:
    assert ask(path, query) == ("200 OK", "text/plain", body)


def test_an_echo_keeps_body_and_type() -> None:
    assert ask("/echo", method="POST", body=b"\0x", CONTENT_TYPE="x/y") == ("200 OK", "x/y", b"\0x")
    assert ask("/echo", method="POST")[1] == "application/octet-stream"


def test_what_is_noted_stands_in_a_file_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ask("/note", "id=1") == ("200 OK", "text/plain", b"noted")
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    for query in ("id=2", "id=3", "id=2", ""):
        ask("/note", query)
    assert (tmp_path / "notes").read_text() == "2\n3\n2\n"


def test_where_names_the_process() -> None:
    assert json.loads(ask("/where")[2])["pid"] == os.getpid()


def test_processes_without_a_controller_are_a_503() -> None:
    assert ask("/processes")[0] == "503 Service Unavailable"


@pytest.mark.parametrize("query", ["ms=-1", "ms=x", "ms=60001", "ms=1.5", "ms=" + "9" * 5000])
def test_a_time_that_is_none_is_a_400(query: str) -> None:
    assert ask("/sync", query)[0] == "400 Bad Request"
    with pytest.raises(ValueError, match=r"."):
        seconds(query)


def turn(path: str, event: str = "receive", state: bytes = b"") -> RunningTurn:
    scope = encode_scope(Scope("", "ws", "1.1", "", path, path.encode(), b"", [], None, None))
    if event == "connect":
        return RunningTurn(app, Connect("i/1", 1, 1, scope, state))
    return RunningTurn(app, Receive("i/1", 2, 1, scope, state, ["x"], 0))


def test_sockets_echo_count_and_tell_the_process() -> None:
    assert turn("/ws/echo").run().frames == ["x"]
    assert turn("/ws/where").run().frames == [str(os.getpid())]
    first = turn("/ws/count").run()
    second = turn("/ws/count", state=first.state).run()
    assert (first.frames, second.frames) == (["1"], ["2"])
    assert decode_state(second.state) == {"messages": 2}


def test_a_rooms_sockets_hear_each_other() -> None:
    joined = turn("/ws/chat/a", "connect").run().joins + turn("/ws/room/a", "connect").run().joins
    said = turn("/ws/chat/a")
    said.run()
    assert [sent.group for sent in said.outcome.sends if isinstance(sent, Broadcast)] == joined
    assert said.outcome.sends[0] == Broadcast(joined[0], "x")


def test_the_plain_form_says_hello_and_says_back() -> None:
    async def heard(kind: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
        arriving, sent = iter(events), []

        async def receive() -> dict[str, Any]:
            return next(arriving)

        async def send(event: dict[str, Any]) -> None:
            sent.append(event)

        await plain({"type": kind}, receive, send)
        return sent

    assert asyncio.run(heard("http"))[1]["body"] == b"Hello, world!"
    frames = (
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "1"},
        {"type": "websocket.disconnect"},
    )
    assert asyncio.run(heard("websocket", *frames))[1:] == [{"type": "websocket.send", "text": "1", "bytes": None}]
