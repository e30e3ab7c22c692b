"""An ASGI application behaves the same in both modes, as clients on raw sockets and WebSockets see it."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES, Machine, new_machine, until
from tests.scenarios.test_demo import SECONDS, closed_with, get
from tests.scenarios.test_faults import client_of, pids
from tests.scenarios.test_http import Client, client

APPLICATION = '''
import asyncio, json, logging, os
from pathlib import Path
from urllib.parse import unquote

logging.basicConfig(level=logging.WARNING)
gate = {}  # name -> event, that another request sets
START, BODY = "http.response.start", "http.response.body"

def event(name):
    return gate.setdefault(name, asyncio.Event())

def note(name, said=""):
    Path(name + ".part").write_text(str(said))
    os.replace(name + ".part", name)

async def answer(send, body, status=200, headers=()):
    await send({"type": START, "status": status, "headers": list(headers)})
    await send({"type": BODY, "body": body})

async def body_of(receive):
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return "disconnect"
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    return size

async def app(scope, receive, send):
    kind = scope["type"]
    if kind == "lifespan":
        await receive()
        scope["state"]["shared"], scope["state"]["own"] = [], 0
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shut-down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"].removeprefix(scope["root_path"])
    found = globals()[("http" if kind == "http" else "ws") + path.replace("/", "_").partition(".")[0]]
    await found(scope, receive, send, scope["query_string"].decode())

def seen(scope):
    shown = {key: value for key, value in scope.items() if key not in ("state", "extensions")}
    return json.dumps(shown, default=lambda value: value.decode("latin-1")).encode()

async def http_scope(scope, receive, send, query):
    await answer(send, seen(scope))

async def http_state(scope, receive, send, query):
    scope["state"]["shared"].append(1)
    scope["state"]["own"] += 1
    await answer(send, b"%d %d" % (len(scope["state"]["shared"]), scope["state"]["own"]))

async def http_headers(scope, receive, send, query):
    await answer(send, b"", headers=[(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3"), (b"x-c", b"\\xe4")])

async def http_head_first(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await event(query).wait()
    await send({"type": BODY, "body": b"body"})

async def http_pid(scope, receive, send, query):
    await answer(send, str(os.getpid()).encode())

async def ws_pid(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(os.getpid())})

async def http_wait_set(scope, receive, send, query):
    note("waits-" + query)
    while not Path("set-" + query).exists():
        await asyncio.sleep(0.02)
    await answer(send, b"news")

async def http_never(scope, receive, send, query):
    await asyncio.Event().wait()

ws_never = http_never

async def http_count(scope, receive, send, query):
    await answer(send, str(await body_of(receive)).encode())

async def http_refuse(scope, receive, send, query):
    await answer(send, b"no", 403)

async def http_whole(scope, receive, send, query):
    await answer(send, b"x" * int(query), headers=[(b"content-length", query.encode())])

async def http_parts(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    for number in range(int(query)):
        await send({"type": BODY, "body": b"%06d" % number, "more_body": True})
    await send({"type": BODY, "body": b""})

async def http_status(scope, receive, send, query):
    await send({"type": START, "status": int(query)})
    await send({"type": BODY})

async def http_events(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(3):
        await send({"type": BODY, "body": b"data: %d\\n\\n" % number, "more_body": True})
        await event(query + str(number)).wait()
    await send({"type": BODY, "body": b"data: end\\n\\n"})

async def http_set(scope, receive, send, query):
    event(query).set()
    await answer(send, b"set")

async def http_poll(scope, receive, send, query):
    note("polls-" + query)
    await event(query).wait()
    await answer(send, b"news")

async def http_body_left(scope, receive, send, query):
    note("heard-" + query, await body_of(receive))

async def http_wait_left(scope, receive, send, query):
    await body_of(receive)
    note("waits-" + query)
    note("heard-" + query, (await receive())["type"])

async def http_stream_left(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": b"tick", "more_body": True})
    await body_of(receive)
    note("heard-" + query, (await receive())["type"])
    try:
        await send({"type": BODY, "body": b"tick", "more_body": True})
        note("sent-" + query, "nothing")
    except OSError:
        note("sent-" + query, "OSError")

async def http_endless(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    number = 0
    while not event(query).is_set():
        await asyncio.sleep(0)
        await send({"type": BODY, "body": b"x" * 65536, "more_body": True})
        number += 1
        note("sent-" + query, number)

async def http_after(scope, receive, send, query):
    await answer(send, b"whole")
    first, second = await receive(), await receive()
    note("heard-" + query, first["type"] + " " + second["type"])

async def http_polled(scope, receive, send, query):
    """As frameworks do to see whether the client is there still."""
    await body_of(receive)
    for _ in range(20):
        task = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        task.cancel()
    await answer(send, b"polled")

async def http_late_error(scope, receive, send, query):
    await answer(send, b"whole", headers=[(b"content-length", b"5")])
    raise ValueError("late " + query)

async def http_raise(scope, receive, send, query):
    raise ValueError("raised " + query)

async def http_raise_begun(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": b"begun", "more_body": True})
    await event("raise" + query).wait()
    raise ValueError("raised " + query)

async def http_garbage(scope, receive, send, query):
    await {
        "nothing": lambda: asyncio.sleep(0),
        "body-first": lambda: send({"type": BODY, "body": b"x"}),
        "unknown": lambda: send({"type": "http.response.what"}),
        "websocket": lambda: send({"type": "websocket.accept"}),
        "no-type": lambda: send({}),
        "no-dict": lambda: send(None),
        "status": lambda: answer(send, b"", 99),
        "status-text": lambda: answer(send, b"", "abc"),
        "header-text": lambda: answer(send, b"", 200, [("x-a", "b")]),
        "header-split": lambda: answer(send, b"", 200, [(b"x-a", b"b\\r\\nx-c: d")]),
        "header-name": lambda: answer(send, b"", 200, [(b"x a", b"b")]),
    }[query]()

async def http_garbage_begun(scope, receive, send, query):
    length = [(b"content-length", b"5")]
    await send({"type": START, "status": 200, "headers": [] if query == "twice" else length})
    await send({"type": BODY, "body": b"123", "more_body": True})
    if query == "twice":
        await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": {"short": b"", "long": b"4567"}[query]})

async def opened(receive, send, **accept):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", **accept})

async def ws_echo(scope, receive, send, query):
    await opened(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: v for k, v in message.items() if k != "type" and v is not None}})
    note("left-" + query, json.dumps([message["code"], message.get("reason") or ""]))

async def ws_scope(scope, receive, send, query):
    scope["state"]["own"] += 1
    await opened(receive, send)
    await send({"type": "websocket.send", "text": seen(scope).decode() + str(scope["state"]["own"])})
    await receive()

async def ws_choose(scope, receive, send, query):
    headers = [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")]
    await opened(receive, send, subprotocol=scope["subprotocols"][1], headers=headers)

async def ws_refuse(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.close", "code": 4000})

async def ws_deny(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
    await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"you"})

async def ws_close(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": "last"})
    code, _, reason = unquote(query).partition("-")
    await send({"type": "websocket.close", "code": int(code), "reason": reason})
    heard = await receive()
    note("closed-" + code, json.dumps([heard["type"], heard["code"]]))

async def ws_numbers(scope, receive, send, query):
    await opened(receive, send)
    for number in range(int(query)):
        await send({"type": "websocket.send", "text": str(number)})
    while (message := await receive())["type"] == "websocket.receive":
        pass

async def ws_deaf(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": "open"})
    await event(query).wait()
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"][:8]})

async def ws_flood(scope, receive, send, query):
    await opened(receive, send)
    number = 0
    try:
        while True:
            await send({"type": "websocket.send", "text": f"{number:08}" + "x" * 65536})
            number += 1
            note("sent-" + query, number)
            await asyncio.sleep(0)  # else uvicorn never comes to see that its client has left
    except OSError:
        note("heard-" + query, "OSError")

async def ws_late_send(scope, receive, send, query):
    await opened(receive, send)
    first, second = await receive(), None
    try:
        await send({"type": "websocket.send", "text": "anybody?"})
    except OSError:
        second = "OSError"
    note("heard-" + query, f"{first['type']} {second}")

async def ws_wait(scope, receive, send, query):
    assert (await receive())["type"] == "websocket.connect"
    note("waits-" + query)
    note("heard-" + query, (await receive())["type"])

async def ws_raise(scope, receive, send, query):
    if query == "open":
        await opened(receive, send)
    raise ValueError("raised " + query)

async def ws_garbage(scope, receive, send, query):
    if query.startswith("open-"):
        await opened(receive, send)
    await {
        "nothing": lambda: asyncio.sleep(0),
        "send-first": lambda: send({"type": "websocket.send", "text": "x"}),
        "http": lambda: send({"type": START, "status": 200, "headers": []}),
        "header": lambda: send({"type": "websocket.accept", "headers": [(b"x-a", "text")]}),
        "open-twice": lambda: send({"type": "websocket.accept"}),
        "open-unknown": lambda: send({"type": "websocket.what"}),
        "open-number": lambda: send({"type": "websocket.send", "text": 5}),
        "open-surrogate": lambda: send({"type": "websocket.send", "text": "\\ud800"}),
        "open-code": lambda: send({"type": "websocket.close", "code": 999}),
        "open-reason": lambda: send({"type": "websocket.close", "code": 4000, "reason": "x" * 200}),
        "open-no-dict": lambda: send(None),
    }[query]()

class Two:
    """ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await app(self.scope, receive, send)

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"of WSGI"]

from asgictl import Application
mixed = Application(http=wsgi, websocket=app)

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})

async def without_lifespan(scope, receive, send):
    assert scope["type"] != "lifespan", "this is no lifespan application"
    await app({**scope, "state": {"shared": [], "own": 0}}, receive, send)
'''


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    (tmp_path / "asgi_app.py").write_text(APPLICATION)
    return machine


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with new_machine() as made:
        made.directory = tmp_path_factory.mktemp("asgi")
        made.mode = request.param
        (made.directory / "asgi_app.py").write_text(APPLICATION)
        made.start("asgi_app:app", "--mode", request.param, "--workers", "1", "--root-path", "/below")
        yield made
        made.stop()
        assert (made.directory / "shut-down").exists(), "its lifespan has ended"


def told(machine: Machine, name: str) -> str:
    """Wait for what the application has noted under a name."""
    assert machine.directory
    path = machine.directory / name
    until(path.exists, f"the application notes {name}", SECONDS)
    return path.read_text()


def log(machine: Machine) -> str:
    """What the process that runs the application has logged."""
    return machine.log("worker-00" if machine.mode == "split" else "server-00")


def lives(machine: Machine) -> None:
    assert get(machine.url + "/count", b"lives")[2] == b"5"


def response_of(raw: Client, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    """Read a whole response; raises OSError or HTTPException when it is cut off."""
    response = HTTPResponse(raw.socket, method=method)
    response.begin()
    return response, response.read()


def stands_still(machine: Machine, look: Callable[[], object]) -> None:
    """Wait until something has not changed while the application answered thirty other requests."""

    def stood() -> bool:
        before = look()
        for _ in range(30):
            lives(machine)
        return before == look()

    until(stood, "it stands still", SECONDS)


# HTTP


def test_the_scope_says_what_the_client_sent(site: Machine) -> None:
    with client(site) as raw:
        lines = ("GET /scope.%C3%A4%2Fb?q=%20+&%ff HTTP/1.1", "X-Two: 1", "X-One: 2", "x-two: \xe4", "Host: example")
        raw.socket.sendall("\r\n".join((*lines, "", "")).encode("latin-1"))
        found = json.loads(response_of(raw)[1])
        port = raw.socket.getsockname()[1]
    assert found.pop("asgi") == {"version": "3.0", "spec_version": "2.4" if site.mode == "split" else "2.3"}
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


# WebSockets


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


# Applications of other kinds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["Two", "without_lifespan"])
def test_asgi_2_and_applications_without_lifespan(project: Machine, mode: str, target: str) -> None:
    project.start(f"asgi_app:{target}", "--mode", mode, "--workers", "1")
    lives(project)
    assert get(project.url + "/state")[2] == b"1 1"
    with connect(project.ws + "/echo") as ws:
        ws.send("echo")
        assert ws.recv(SECONDS) == "echo"


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_startup_is_a_failed_start_with_its_reason(project: Machine, mode: str) -> None:
    bind = ("--bind", f"127.0.0.1:{project.port}")
    done = project.run("start", "asgi_app:failing", "--mode", mode, "--workers", "1", *bind)
    assert done.returncode == 3
    assert "the cellar is flooded" in done.stderr


def test_an_application_that_never_answers_is_cancelled_and_its_worker_lives_on(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1", "--timeout", "1")
    assert get(project.url + "/never")[0] == 504
    with pytest.raises(InvalidStatus, match="504"):
        connect(project.ws + "/never")
    lives(project)
    for line in ("asgi_app:app: GET /never failed", "asgi_app:app: WebSocket /never failed"):
        until(lambda: project.log("worker-00").count(line) == 1, "the log names target and event")  # noqa: B023 - not kept


@pytest.mark.parametrize("mode", MODES)
def test_wsgi_beside_sockets_of_asgi(project: Machine, mode: str) -> None:
    project.start("asgi_app:mixed", "--mode", mode, "--workers", "1")
    with connect(project.ws + "/echo") as ws:
        assert get(project.url + "/anything")[2] == b"of WSGI"
        ws.send("echo")
        assert ws.recv(SECONDS) == "echo"


# What only split mode has: parts that end by themselves


def the_worker(machine: Machine) -> int:
    (pid,) = pids(machine, "worker")
    return pid


def test_a_killed_worker_takes_its_sockets_and_what_it_streams_with_it(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo") as ws, client(project) as streaming:
        streaming.send("GET /stream_left?dies HTTP/1.1")
        streaming.hear(b"tick")
        os.kill(the_worker(project), signal.SIGKILL)
        assert closed_with(ws) == 1012
        with pytest.raises((AssertionError, OSError)):
            streaming.hear(b"0\r\n\r\n")
    lives(project)


def test_a_worker_that_drains_finishes_http_and_serves_its_sockets_for_as_long_as_it_may(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1", "--drain-seconds", "6")
    before = the_worker(project)
    with connect(project.ws + "/echo?drained") as ws, client(project) as polling:
        polling.send("GET /wait_set?drain HTTP/1.1")
        told(project, "waits-drain")
        os.kill(before, signal.SIGTERM)
        until(lambda: "draining" in project.log("worker-00"), "it drains")
        ws.send("served still")
        assert ws.recv(SECONDS) == "served still"
        assert project.directory
        (project.directory / "set-drain").touch()
        assert response_of(polling)[1] == b"news"
        assert closed_with(ws) == 1012
    assert json.loads(told(project, "left-drained")) == [1012, ""]
    until(lambda: pids(project, "worker") - {before}, "another is ready", SECONDS)
    lives(project)


def test_a_drained_worker_takes_nothing_new(project: Machine) -> None:
    """While the first serves what it has, the second serves the rest."""
    project.start("asgi_app:app", "--workers", "2")
    with connect(project.ws + "/pid") as ws:
        first = int(ws.recv(SECONDS))
        os.kill(first, signal.SIGTERM)
        until(lambda: "draining" in logs(project), "it drains")
        assert {int(get(project.url + "/pid")[2]) for _ in range(50)} == pids(project, "worker") - {first}
        ws.send("?")
        assert int(ws.recv(SECONDS)) == first


def logs(machine: Machine) -> str:
    return machine.log("worker-00") + machine.log("worker-01")


class Numbered:
    """A socket that sends 0, 1, 2 ... to be echoed, at most 200 ahead of what comes back, until it is told to end."""

    def __init__(self, ws: ClientConnection) -> None:
        self.heard: list[str] = []
        self.is_over = threading.Event()
        self._ws = ws
        self._ahead = threading.Semaphore(200)
        self._threads = [threading.Thread(target=act) for act in (self._send, self._hear)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        for number in count():
            if self.is_over.is_set() or not self._ahead.acquire(timeout=SECONDS):
                break
            self._ws.send(str(number))
        self._ws.send("end")

    def _hear(self) -> None:
        while (said := str(self._ws.recv(SECONDS))) != "end":
            self.heard.append(said)
            self._ahead.release()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_cut_connections_to_redis_lose_repeat_and_reorder_nothing(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with ExitStack() as stack, client_of(project) as admin:
        sockets = [Numbered(stack.enter_context(connect(project.ws + "/echo"))) for _ in range(5)]

        def flows() -> None:
            goals = [len(each.heard) + 1000 for each in sockets]
            until(lambda: all(len(each.heard) >= goal for each, goal in zip(sockets, goals, strict=True)), "it flows")

        try:
            for _ in range(8):
                flows()
                admin.client_kill_filter(_type="normal", skipme=True)
            flows()
        finally:
            for each in sockets:
                each.is_over.set()
            for each in sockets:
                each.join()
        for each in sockets:
            assert each.heard == [str(number) for number in range(len(each.heard))]


def test_sockets_end_when_redis_forgets_everything_and_their_applications_hear_of_it(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo?forgotten") as ws, client_of(project) as admin:
        ws.send("before")
        assert ws.recv(SECONDS) == "before"
        admin.flushall()
        assert closed_with(ws) == 1012
    told(project, "left-forgotten")
    with connect(project.ws + "/echo") as ws:
        ws.send("after")
        assert ws.recv(SECONDS) == "after"


def test_applications_hear_of_the_death_of_an_interface_though_they_say_nothing(project: Machine) -> None:
    project.start("asgi_app:app", "--workers", "1")
    with connect(project.ws + "/echo?orphan") as ws, client(project) as raw:
        raw.send("GET /wait_left?orphan HTTP/1.1")
        told(project, "waits-orphan")
        (interface,) = pids(project, "interface")
        os.kill(interface, signal.SIGKILL)
        assert closed_with(ws) == 1006
    assert json.loads(told(project, "left-orphan"))[0] == 1006
    assert told(project, "heard-orphan") == "http.disconnect"
    until(lambda: pids(project, "interface") - {interface}, "another is ready", SECONDS)
    lives(project)
