"""The access log's lines."""

import logging

import pytest
from msgspec.structs import replace

from asgictl.telemetry.access_log import UNLOGGED, Answer, WebSocketLog, log_request
from asgictl.wire.messages import Scope

SCOPE = Scope("GET", "http", "1.1", "", "/a b\n1", b"", b"token=x", [], ("10.0.0.1", 5), None)
SOCKET = Scope("", "ws", "1.1", "", "/ws/ä", b"", b"token=x", [], None, None)


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
    log_request(replace(SCOPE, client=('x" 1\n', 0)), "i/1", answer())
    assert caplog.messages[0].startswith("x%22%201%0A ")


def test_wait_run_and_worker_are_told_where_they_are_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    log_request(SCOPE, "i/1", answer(0.002, "worker-03"))
    assert caplog.messages[0].endswith("ms wait=3.0 run=2.0 worker=worker-03")


@pytest.mark.parametrize(
    ("opens", "ends", "said"),
    [
        (True, [1001], ["101 open", "1001 close"]),
        (True, [1012, 1006], ["101 open", "1012 close"]),
        (False, [403, 1006], ["403 refused"]),
        (False, [404], ["404 refused"]),
    ],
)
def test_a_socket_has_a_line_when_it_opens_and_one_when_it_ends(
    opens: bool, ends: list[int], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    log = WebSocketLog(SOCKET, "i/2")
    if opens:
        log.open()
    for code in ends:
        log.end(code)
    assert [line.startswith('- "WEBSOCKET /ws/%C3%A4" i/2 ') for line in caplog.messages] == [True] * len(said)
    assert [" ".join(line.split()[4:6]) for line in caplog.messages] == said
    assert caplog.messages[-1].endswith("ms")


def test_a_socket_that_is_not_logged_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgictl.access")
    UNLOGGED.open()
    UNLOGGED.end(1000)
    assert caplog.messages == []
