"""The access log's lines."""

import logging
from typing import Any

import pytest

from asgictl.telemetry.access_log import Answer, WebSocketLog, log_request
from tests.conftest import scenario

SCOPE: dict[str, Any] = {"method": "GET", "path": "/a b\n1", "query_string": b"token=x", "client": ("10.0.0.1", 5)}
SOCKET: dict[str, Any] = {"path": "/ws/ä", "query_string": b"token=x", "client": None}


def answer(run_seconds: float = 0.0, worker: str = "") -> Answer:
    made = Answer()
    made.begin(201)
    made.seconds, made.run_seconds, made.worker, made.bytes = 0.005, run_seconds, worker, 7
    return made


def test_a_line_holds_no_query_and_no_line_feed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    log_request(SCOPE, "i/1", answer())
    (line,) = caplog.messages
    assert line.startswith('10.0.0.1 "GET /a%20b%0A1" i/1 201 7 ')
    assert "token" not in line
    assert "wait" not in line


def test_a_forged_client_makes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    log_request(SCOPE | {"client": ('x" 1\n', 0)}, "i/1", answer())
    assert caplog.messages[0].startswith("x%22%201%0A ")


def test_wait_run_and_worker_are_told_where_they_are_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    log_request(SCOPE, "i/1", answer(0.002, "worker-03"))
    assert caplog.messages[0].endswith("ms wait=3.0 run=2.0 worker=worker-03")


@pytest.mark.parametrize(
    ("sent", "received", "said"),
    [
        ([{"type": "websocket.accept"}], [{"type": "websocket.disconnect", "code": 1001}], ["101 open", "1001 close"]),
        ([{"type": "websocket.accept"}], [{"type": "websocket.disconnect"}], ["101 open", "1006 close"]),
        (
            [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1012}],
            [{"type": "websocket.disconnect", "code": 1006}],
            ["101 open", "1012 close"],
        ),
        ([{"type": "websocket.close"}], [{"type": "websocket.disconnect", "code": 1006}], ["403 refused"]),
        ([{"type": "websocket.http.response.start", "status": 404}], [], ["404 refused"]),
    ],
)
def test_a_socket_has_a_line_when_it_opens_and_one_when_it_ends(
    sent: list[dict[str, Any]], received: list[dict[str, Any]], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    passed: list[Any] = []

    @scenario
    async def socket() -> None:
        coming = iter(received)

        async def receive() -> Any:
            return next(coming)

        async def send(message: Any) -> None:
            passed.append(message)

        log = WebSocketLog(SOCKET, "i/2", receive, send)
        for message in sent:
            await log.send(message)
        for _ in received:
            passed.append(await log.receive())

    socket()
    assert passed == sent + received
    assert [line.startswith('- "WEBSOCKET /ws/%C3%A4" i/2 ') for line in caplog.messages] == [True] * len(said)
    assert [" ".join(line.split()[4:6]) for line in caplog.messages] == said
