"""WebSockets of an ASGI application behave the same in both modes, as clients see it."""

import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.asgi_project import asgi_site, lives, log, stands_still, told
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_http import client


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with asgi_site(request.param, tmp_path_factory.mktemp("asgi")) as made:
        yield made


def test_the_scope_of_a_socket(site: Machine) -> None:
    with connect(site.ws + "/scope.%C3%A4?a=%20", additional_headers=[("X-A", "1"), ("X-A", "2")]) as ws:
        port = ws.local_address[1]
        said = str(ws.recv(SECONDS))
        found = json.loads(said[:-1])
    assert said[-1] == "1", "its state is its own"
    headers = found.pop("headers")
    assert [value for name, value in headers if name == "x-a"] == ["1", "2"]
    assert found.pop("asgi") == {"version": "3.0", "spec_version": "2.4"}
    assert found == {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "root_path": "/below",
        "path": "/below/scope.ä",
        "raw_path": "/below/scope.%C3%A4",
        "query_string": "a=%20",
        "subprotocols": [],
        "client": ["127.0.0.1", port],
        "server": ["127.0.0.1", site.port],
    }


def test_messages_come_back_unchanged_and_in_order(site: Machine) -> None:
    frames: list[str | bytes] = ["", b"", "ä", b"\0\xff", "x" * 1_000_000, b"y" * 1_000_000]
    frames += [str(number) if number % 2 else b"%d" % number for number in range(4000)]
    with connect(site.ws + "/echo?order", max_size=None) as ws:
        sender = threading.Thread(target=lambda: list(map(ws.send, frames)))
        sender.start()
        assert [ws.recv(SECONDS) for _ in frames] == frames
        sender.join()


def test_thousands_of_messages_that_nobody_asked_for_come_in_order(site: Machine) -> None:
    with connect(site.ws + "/numbers?20000") as ws:
        assert [ws.recv(SECONDS) for _ in range(20000)] == [str(number) for number in range(20000)]


def test_the_subprotocol_and_headers_of_an_accept(site: Machine) -> None:
    with connect(site.ws + "/choose", subprotocols=["one", "two"]) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "two"
        assert ws.response
        assert ws.response.headers.get_all("x-one") == ["1", "3"]
        assert ws.response.headers["x-two"] == "2"


def test_a_close_before_the_accept_is_403(site: Machine) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(site.ws + "/refuse")


def test_a_denial_has_the_application_s_response(site: Machine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(site.ws + "/deny")
    response = refused.value.response
    assert (response.status_code, response.headers["x-why"], response.body) == (401, "because", b"not you")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, "ä"), (4999, "x" * 123)])
def test_the_application_s_close_comes_behind_what_it_sent(site: Machine, code: int, reason: str) -> None:
    with connect(f"{site.ws}/close?{code}-{quote(reason)}") as ws:
        assert ws.recv(SECONDS) == "last"
        assert closed_with(ws) == code
        assert ws.close_reason == reason
    assert json.loads(told(site, f"closed-{code}")) == ["websocket.disconnect", code]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4321, "ä")])
def test_the_client_s_close_is_heard(site: Machine, code: int, reason: str) -> None:
    with connect(f"{site.ws}/echo?{code}") as ws:
        ws.close(code, reason)
    assert json.loads(told(site, f"left-{code}")) == [code, reason]


def test_a_client_that_vanishes_is_heard_of(site: Machine) -> None:
    with connect(site.ws + "/echo?vanished") as ws:
        ws.socket.shutdown(socket.SHUT_RDWR)
    assert json.loads(told(site, "left-vanished")) == [1005, ""]


def test_a_send_behind_the_end_is_an_error(site: Machine) -> None:
    with connect(site.ws + "/late_send?end"):
        pass
    assert told(site, "heard-end") == "websocket.disconnect OSError"


def test_a_client_that_leaves_its_handshake_is_heard_of(site: Machine) -> None:
    with client(site) as raw:
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        raw.send("GET /wait?hand HTTP/1.1", *upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        told(site, "waits-hand")
    assert told(site, "heard-hand") == "websocket.disconnect"


def test_an_application_that_does_not_receive_holds_its_client_back_and_loses_nothing(site: Machine) -> None:
    sent: list[str] = []

    def send() -> None:
        for number in range(600):
            ws.send(f"{number:08}" + "x" * 65536)
            sent.append(f"{number:08}")

    with connect(site.ws + "/deaf?deaf") as ws:
        assert ws.recv(SECONDS) == "open"
        sender = threading.Thread(target=send)
        sender.start()
        stands_still(site, lambda: len(sent))
        assert len(sent) < 600
        get(site.url + "/set?deaf")
        assert [ws.recv(SECONDS) for _ in range(600)] == [f"{number:08}" for number in range(600)]
        sender.join()


def test_a_client_that_does_not_read_holds_its_application_back(site: Machine) -> None:
    with client(site) as raw:
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        raw.send("GET /flood?flood HTTP/1.1", *upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        raw.hear(b"101")
        told(site, "sent-flood")
        stands_still(site, lambda: told(site, "sent-flood"))
        assert int(told(site, "sent-flood")) < 64 << 4, "64 MiB"
        for number in range(100):
            raw.hear(b"%08d" % number)
    assert told(site, "heard-flood") == "OSError"


def test_a_socket_that_its_application_leaves_is_closed_with_1000(site: Machine) -> None:
    with connect(site.ws + "/choose", subprotocols=["one", "two"]) as ws:  # type: ignore[list-item]
        assert closed_with(ws) == 1000


def test_an_exception_is_500_or_1011_and_logged_once(site: Machine) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        connect(site.ws + "/raise?connecting")
    with connect(site.ws + "/raise?open") as ws:
        assert closed_with(ws) == 1011
    lives(site)
    for which in ("connecting", "open"):
        until(lambda: log(site).count(f"ValueError: raised {which}") == 1, "it is logged once")  # noqa: B023


@pytest.mark.parametrize("what", ["nothing", "send-first", "http", "header"])
def test_garbage_for_a_handshake_is_500(site: Machine, what: str) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        connect(f"{site.ws}/garbage?{what}")
    lives(site)


@pytest.mark.parametrize("what", ["twice", "unknown", "number", "surrogate", "code", "reason", "no-dict"])
def test_garbage_on_a_socket_is_1011(site: Machine, what: str) -> None:
    with connect(f"{site.ws}/garbage?open-{what}") as ws:
        assert closed_with(ws) == 1011
    lives(site)
