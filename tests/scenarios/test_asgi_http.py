"""HTTP of an ASGI application behaves the same in both modes, as clients on raw sockets see it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException

import pytest

from tests.conftest import MODES, Machine, until
from tests.scenarios.asgi_project import asgi_site, lives, log, response_of, stands_still, told
from tests.scenarios.test_demo import get
from tests.scenarios.test_http import client


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with asgi_site(request.param, tmp_path_factory.mktemp("asgi")) as made:
        yield made


def test_the_scope_says_what_the_client_sent(site: Machine) -> None:
    with client(site) as raw:
        lines = ("GET /scope.%C3%A4%2Fb?q=%20+&%ff HTTP/1.1", "X-Two: 1", "X-One: 2", "x-two: \xe4", "Host: example")
        raw.socket.sendall("\r\n".join((*lines, "", "")).encode("latin-1"))
        found = json.loads(response_of(raw)[1])
        port = raw.socket.getsockname()[1]
    assert found.pop("asgi") == {"version": "3.0", "spec_version": "2.3"}
    assert found == {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "root_path": "/below",
        "path": "/below/scope.ä/b",
        "raw_path": "/below/scope.%C3%A4%2Fb",
        "query_string": "q=%20+&%ff",
        "headers": [["x-two", "1"], ["x-one", "2"], ["x-two", "ä"], ["host", "example"]],
        "client": ["127.0.0.1", port],
        "server": ["127.0.0.1", site.port],
    }


def test_http_1_0_is_said_so(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /scope HTTP/1.0")
        assert json.loads(response_of(raw)[1])["http_version"] == "1.0"


def test_headers_of_a_response_keep_their_order_and_bytes(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /headers HTTP/1.1")
        lines = raw.hear(b"\r\n\r\n").splitlines()
    assert [line for line in lines if line.startswith(b"x-")] == [b"x-b: 1", b"x-a: 2", b"x-b: 3", b"x-c: \xe4"]


def test_each_connection_has_a_copy_of_the_state_that_the_lifespan_left(site: Machine) -> None:
    first, second = (get(site.url + "/state")[2].decode().split() for _ in range(2))
    assert int(second[0]) == int(first[0]) + 1, "what is in it is shared"
    assert first[1] == second[1] == "1"


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
def test_a_body_of_any_size_is_read_whole(site: Machine, size: int) -> None:
    assert get(site.url + "/count", b"x" * size)[2] == str(size).encode()


def test_a_chunked_body_is_read_whole(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /count HTTP/1.1", "Transfer-Encoding: chunked")
        for size in (1, 70_000, 3):
            raw.socket.sendall(b"%x\r\n" % size + b"x" * size + b"\r\n")
        raw.socket.sendall(b"0\r\n\r\n")
        assert response_of(raw)[1] == b"70004"


@pytest.mark.parametrize("path", ["count", "refuse"])
def test_100_continue_is_sent_when_the_application_reads_and_only_then(site: Machine, path: str) -> None:
    with client(site) as raw:
        raw.send(f"POST /{path} HTTP/1.1", "Expect: 100-continue", "Content-Length: 5")
        first = raw.hear(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 100" if path == "count" else b"HTTP/1.1 403")
        if path == "count":
            raw.socket.sendall(b"hello")
            assert response_of(raw)[1] == b"5"


def test_a_response_comes_before_the_body_was_sent(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /refuse HTTP/1.1", "Content-Length: 1000000", body=b"only the beginning")
        raw.hear(b"403")


@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 20) + 1, 20_000_000])
def test_a_response_of_any_size_arrives_whole(site: Machine, size: int) -> None:
    with client(site) as raw:
        raw.send(f"GET /whole?{size} HTTP/1.1")
        response, body = response_of(raw)
        assert response.getheader("content-length") == str(size) == str(len(body))


def test_thousands_of_parts_arrive_in_order(site: Machine) -> None:
    assert get(site.url + "/parts?5000")[2] == b"".join(b"%06d" % number for number in range(5000))


@pytest.mark.parametrize("status", [204, 304, 200])
def test_responses_without_a_body_keep_the_connection(site: Machine, status: int) -> None:
    with client(site) as raw:
        for _ in range(2):
            raw.send(f"GET /status?{status} HTTP/1.1")
            response, body = response_of(raw)
            assert (response.status, body, response.getheader("content-length")) == (status, b"", None)


def test_head_has_the_headers_and_no_body(site: Machine) -> None:
    with client(site) as raw:
        for path in ("whole?3", "parts?3"):
            raw.send(f"HEAD /{path} HTTP/1.1")
            response, body = response_of(raw, "HEAD")
            assert (response.status, body) == (200, b"")
        raw.send("GET /whole?3 HTTP/1.1")
        assert response_of(raw)[1] == b"xxx"


def test_each_server_sent_event_comes_when_it_is_sent(site: Machine) -> None:
    """The application waits for another request before it sends the next."""
    with client(site) as raw:
        raw.send("GET /events?sse HTTP/1.1")
        for number in range(3):
            raw.hear(b"data: %d\n\n" % number)
            assert get(f"{site.url}/set?sse{number}")[2] == b"set"
        raw.hear(b"data: end\n\n")


def test_the_head_of_a_response_comes_before_there_is_a_body(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /head_first?head HTTP/1.1")
        raw.hear(b"\r\n\r\n")
        get(site.url + "/set?head")
        raw.hear(b"body")


def test_many_long_polls_wait_side_by_side(site: Machine) -> None:
    with ExitStack() as stack:
        polls = [stack.enter_context(client(site)) for _ in range(200)]
        for number, raw in enumerate(polls):
            raw.send(f"GET /poll?{number % 2} HTTP/1.1")
        told(site, "polls-0")
        for name in "01":
            get(f"{site.url}/set?{name}")
        assert all(response_of(raw)[1] == b"news" for raw in polls)


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_client_that_leaves_within_its_body_is_heard_of(site: Machine, size: int) -> None:
    with client(site) as raw:
        raw.send(f"POST /body_left?{size} HTTP/1.1", f"Content-Length: {size}", "Expect: 100-continue")
        raw.hear(b"100 Continue")
        raw.socket.sendall(b"x" * (size // 2))
    assert told(site, f"heard-{size}") == "disconnect"


def test_a_client_that_leaves_before_its_response_is_heard_of(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /wait_left?wait HTTP/1.1")
        told(site, "waits-wait")
    assert told(site, "heard-wait") == "http.disconnect"


def test_a_client_that_leaves_within_its_response_is_heard_of(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /stream_left?stream HTTP/1.1")
        raw.hear(b"tick")
    assert told(site, "heard-stream") == "http.disconnect"
    assert told(site, "sent-stream") == ("OSError" if site.mode == "split" else "nothing")


def test_a_client_that_does_not_read_holds_its_response_back(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /endless?slow HTTP/1.1")
        told(site, "sent-slow")
        stands_still(site, lambda: told(site, "sent-slow"))
        assert int(told(site, "sent-slow")) < 64 << 4, "64 MiB"
        get(site.url + "/set?slow")


def test_after_the_response_receive_says_that_it_is_over(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /after?read HTTP/1.1", "Content-Length: 1000000", body=b"not all of it")
        raw.hear(b"whole")
        assert told(site, "heard-read") == "http.disconnect http.disconnect"


def test_receive_may_be_cancelled_and_called_again(site: Machine) -> None:
    assert get(site.url + "/polled", b"x" * 200_000)[2] == b"polled"


def test_an_error_behind_a_response_does_not_touch_the_next_on_its_connection(site: Machine) -> None:
    with client(site) as raw:
        for number in range(5):
            raw.send(f"GET /late_error?{number} HTTP/1.1")
            assert response_of(raw)[1] == b"whole"
    for number in range(5):
        until(lambda: log(site).count(f"ValueError: late {number}") == 1, "it is logged")  # noqa: B023 - not kept


def test_an_exception_is_500_and_logged_once(site: Machine) -> None:
    with client(site) as raw:
        for _ in range(2):  # on one connection
            raw.send("GET /raise?http HTTP/1.1")
            assert response_of(raw)[0].status == 500
    lives(site)
    until(lambda: log(site).count("ValueError: raised http") == 2, "it is logged once")
    assert log(site).count("asgi_app:app: GET /below/raise failed") == 2


def test_an_exception_behind_the_head_cuts_the_response_off(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /raise_begun?begun HTTP/1.1")
        raw.hear(b"begun")
        get(site.url + "/set?raisebegun")
        with pytest.raises((AssertionError, OSError)):
            raw.hear(b"0\r\n\r\n")
    until(lambda: log(site).count("ValueError: raised begun") == 1, "it is logged once")


GARBAGE = ["nothing", "body-first", "unknown", "websocket", "no-type", "no-dict"]
GARBAGE += ["status", "status-text", "header-text", "header-split", "header-name"]


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_500_and_the_worker_lives_on(site: Machine, what: str) -> None:
    assert get(f"{site.url}/garbage?{what}")[0] == 500
    lives(site)


@pytest.mark.parametrize("what", ["twice", "short", "long"])
def test_garbage_behind_the_head_cuts_the_response_off(site: Machine, what: str) -> None:
    with client(site) as raw:
        raw.send(f"GET /garbage_begun?{what} HTTP/1.1")
        with pytest.raises((HTTPException, OSError)):
            response_of(raw)
    lives(site)
