"""WSGI applications in a worker (PEP 3333), without Redis."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from asgictl.wire.messages import WINDOW_BYTES, Chunk, Credit, Gone, Request, Response, WorkerMessage
from asgictl.worker.response import PART_BYTES, ClientDisconnected
from asgictl.worker.wsgi import WSGIRun, environ_of
from tests.worker.conftest import Client, flow_of, scope

Start = Callable[..., Callable[[bytes], object]]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


class Ran:
    """A request that went through an application, validated on both sides; `parts` left before the reply."""

    def __init__(self, app: App, method: str = "GET", body: bytes = b"", *, validated: bool = True, **changed: Any):
        client = Client()
        run = WSGIRun(flow_of(client, Request("i/1", 1, scope(method, **changed), body)))
        self.reply = run.run(validator(app) if validated else app)
        self.parts = client.parts
        self.all = [*self.parts, self.reply]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.all[0].headers)

    @property
    def body(self) -> bytes:
        return b"".join(part.body for part in self.all)


def check_sequence(ran: Ran) -> None:
    """Whoever reads the parts in sequence must reach the last."""
    assert [part.sequence for part in ran.all] == list(range(len(ran.all)))
    assert [part.more for part in ran.all] == [True] * len(ran.parts) + [False]


def hello(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"hello, ", b"world"]


def test_a_body_that_is_whole_is_one_part_of_known_length() -> None:
    ran = Ran(hello, validated=False)
    assert ran.parts == []
    assert ran.reply.status == 200
    assert ran.headers == {b"content-type": b"text/plain", b"content-length": b"12"}
    assert ran.body == b"hello, world"


def test_the_environ_says_what_was_asked() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        seen.update(environ, read=environ["wsgi.input"].read(3))
        return hello(environ, start_response)

    headers = [(b"content-length", b"4"), (b"content-type", b"x/y"), (b"x-a", b"1"), (b"x-a", b"2")]
    headers += [(b"cookie", b"a=1"), (b"cookie", b"b=\xe9")]
    Ran(app, "POST", b"body", headers=headers, root_path="/a", path="/a/é", raw_path=b"/a/%C3%A9")
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/a",
        "PATH_INFO": "/Ã©",
        "QUERY_STRING": "q=1",
        "RAW_URI": "/a/%C3%A9?q=1",
        "SERVER_NAME": "h",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "1.2.3.4",
        "CONTENT_TYPE": "x/y",
        "CONTENT_LENGTH": "4",
        "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a=1; b=é",
        "read": b"bod",
    }
    assert {name: seen[name] for name in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in seen


@pytest.mark.parametrize(("scheme", "port"), [("http", "80"), ("https", "443")])
def test_a_request_over_a_unix_socket_has_the_schemes_port_and_no_address(scheme: str, port: str) -> None:
    environ = environ_of(scope(server=None, client=None, scheme=scheme), io.BytesIO())
    assert environ["SERVER_PORT"] == port
    assert "REMOTE_ADDR" not in environ


@pytest.mark.parametrize(
    ("root", "raw", "path"),
    [
        ("", b"/p_%E5", "/p_\xe5"),
        ("", b"/p_%C3%A5", "/p_\xc3\xa5"),
        ("/a", b"/a/%FF%FE/%41%2F", "/\xff\xfe/A/"),
        ("/a", b"/a", ""),
        ("", b"/%", "/%"),
        ("", b"/%25E5", "/%E5"),
    ],
)
def test_a_path_is_its_bytes_as_latin_1(root: str, raw: bytes, path: str) -> None:
    """B2; PEP 3333, "Unicode Issues"."""
    environ = environ_of(scope(root_path=root, path=root + "/\ufffd", raw_path=raw), io.BytesIO())
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (root, path)


def test_a_proxy_tells_an_address_without_a_port() -> None:
    environ = environ_of(scope(client=("1.2.3.4", 0)), io.BytesIO())
    assert environ["REMOTE_ADDR"] == "1.2.3.4"
    assert "REMOTE_PORT" not in environ


def test_parts_leave_as_they_are_yielded() -> None:
    seen: list[int] = []
    client = Client()

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for letter in (b"a", b"", b"b"):
            yield letter
            seen.append(len(client.parts))

    reply = WSGIRun(flow_of(client, Request("i/1", 2, scope(), b""))).run(validator(app))
    parts = client.parts
    assert seen == [1, 1, 2]
    assert [part.body for part in parts] == [b"a", b"b"]
    assert {(part.attempt, part.entry) for part in (*parts, reply)} == {(2, b"5-0")}, "each says what it answers"
    assert [part.inbox for part in (*parts, reply)] == ["w.0", "w.0", ""], "and where it wants to hear of more credit"
    assert [part.sequence for part in [*parts, reply]] == [0, 1, 2]
    assert (reply.body, reply.more) == (b"", False)
    assert b"content-length" not in dict(parts[0].headers)


def test_a_validator_finds_no_fault_and_the_body_is_the_same() -> None:
    ran = Ran(hello)
    check_sequence(ran)
    assert (ran.all[0].status, ran.body) == (200, b"hello, world")


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"], [b"", b"a", b"bcd"]])
def test_a_streamed_body_of_known_length_keeps_its_length(pieces: list[bytes]) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
        yield from pieces

    ran = Ran(app)
    check_sequence(ran)
    assert ran.body == b"abcd"
    assert ran.headers[b"content-length"] == b"4"
    assert len(pieces) > 1 or ran.parts == [], "whole at once, it needs no second part"


@pytest.mark.parametrize("validated", [True, False])
def test_what_write_is_given_leaves_at_once_and_before_what_is_returned(validated: bool) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"a")
        write(b"b")
        return [b"c"]

    ran = Ran(app, validated=validated)
    check_sequence(ran)
    assert [part.body for part in ran.parts[:2]] == [b"a", b"b"]
    assert ran.body == b"abc"
    assert b"content-length" not in ran.headers, "a part that has left must not change"


def test_an_application_may_replace_its_response_until_it_has_begun() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        try:
            raise ValueError("theirs")
        except ValueError:
            start_response("418 Teapot", [("Content-Type", "x/y")], sys.exc_info())
        return [b"short"]

    ran = Ran(app)
    assert (ran.reply.status, ran.body) == (418, b"short")
    assert ran.headers[b"content-type"] == b"x/y"


def test_an_application_cannot_replace_a_response_that_has_begun() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        try:
            raise ValueError("theirs")
        except ValueError:
            start_response("500 Oops", PLAIN, sys.exc_info())

    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert ran.reply.aborted


def test_a_replaced_response_holds_nothing_of_the_first_ones_body() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
        yield b"first"
        try:
            raise ValueError("theirs")
        except ValueError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"second"

    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert ran.reply.aborted or b"first" not in ran.body


class Closing:
    """A response whose close() is counted, and may fail."""

    def __init__(self, parts: list[bytes], error: Exception | None = None) -> None:
        self.parts, self.error, self.closed = parts, error, 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.error and not self.closed:
            raise self.error

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("error", [None, ValueError("theirs")])
def test_a_response_is_closed_once_whether_it_ended_or_failed(error: Exception | None) -> None:
    response = Closing([b"a"], error)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return response

    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert response.closed == 1
    assert ran.reply.aborted is (error is not None)


def test_a_body_without_end_is_read_no_further_than_its_length() -> None:
    """PEP 3333, "Handling the Content-Length Header"."""
    given: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "3")])
        while len(given) < 100:
            given.append(b"xx")
            yield b"xx"

    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert (len(given), ran.reply.aborted) == (2, True)


@pytest.mark.parametrize("headers", [PLAIN, [*PLAIN, ("Content-Length", "4")]])
def test_a_close_that_fails_leaves_no_gap_in_the_response(headers: list[tuple[str, str]]) -> None:
    class Failing(Closing):
        def close(self) -> None:
            raise ValueError("theirs")

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return Failing([b"body"])

    check_sequence(Ran(app, validated=False))


def before(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    raise ValueError("theirs")


def never(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    return [b"no start_response"]


def late(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", [*PLAIN, ("X-Secret", "1")])
    raise ValueError("theirs")
    yield b""


def twice(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    start_response("201 Created", PLAIN)
    return []


def text(environ: dict[str, Any], start_response: Start) -> Iterable[Any]:
    start_response("200 OK", PLAIN)
    yield "text"


def unencodable(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("X-Name", "€")])
    return []


@pytest.mark.parametrize("app", [before, never, late, twice, text, unencodable])
def test_a_fault_before_the_response_began_is_a_500_and_is_logged_once(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert (ran.reply.status, ran.body) == (500, b"Internal Server Error\n")
    assert set(ran.headers) == {b"content-type", b"content-length"}
    assert len(caplog.records) == 1


def test_a_fault_after_the_response_began_cuts_it_off() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        raise ValueError("theirs")

    ran = Ran(app, validated=False)
    check_sequence(ran)
    assert (ran.parts[0].status, ran.parts[0].body) == (200, b"begun")
    assert (ran.reply.aborted, ran.reply.body) == (True, b"")


def test_headers_are_latin_1_in_lower_case_and_duplicates_keep_their_order() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Set-Cookie", "a=é"), ("Set-Cookie", "b"), *PLAIN])
        return [b"x"]

    assert Ran(app).all[0].headers[:2] == [(b"set-cookie", b"a=\xe9"), (b"set-cookie", b"b")]


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_no_length_is_made_up_for_a_response_without_a_body(method: str, status: str) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(status, PLAIN if method == "HEAD" else [])
        return []

    ran = Ran(app, method)
    assert b"content-length" not in ran.headers
    assert ran.body == b""


def test_a_length_that_the_application_gave_is_kept() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "12")])
        return []

    assert Ran(app, "HEAD").headers[b"content-length"] == b"12"


def of_size(size: int) -> App:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"x" * size]

    return app


@pytest.mark.parametrize("credit", [WINDOW_BYTES, 4096])
@pytest.mark.parametrize("over", [-1, 0, 1, 3 * PART_BYTES])
def test_a_response_larger_than_its_credit_goes_in_parts_and_still_carries_its_length(credit: int, over: int) -> None:
    client = Client()
    request = Request("i/1", 1, scope(), b"", credit=credit)
    reply = WSGIRun(flow_of(client, request)).run(of_size(credit + over))
    every = [*client.parts, reply]
    assert len(b"".join(part.body for part in every)) == credit + over
    assert dict(every[0].headers)[b"content-length"] == b"%d" % (credit + over)
    assert [part.sequence for part in every] == list(range(len(every)))
    assert max(len(part.body) for part in client.parts or [reply]) <= max(credit, PART_BYTES)
    assert (len(every) > 1) == (over > 0)


def test_no_more_is_on_its_way_than_there_is_credit_for() -> None:
    """The client takes nothing until all credit is used up, and then all that it was sent."""
    credit, size, on_its_way = 100, 1000, list[int]()

    class Slow(Client):
        def mail(self, reply: Any, wait_seconds: float = 0) -> tuple[bool, list[WorkerMessage]]:
            if reply:
                self.sent.append(reply)
            on_its_way.append(sum(len(part.body) for part in self.parts) - taken[0])
            letters: list[WorkerMessage] = [] if reply else [Credit("i/1", b"5-0", on_its_way[-1], next(self._numbers))]
            taken[0] += sum(letter.size for letter in letters if isinstance(letter, Credit))
            return True, letters

    taken = [0]
    client = Slow()

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x" * 30
        yield b"x" * (size - 30)

    reply = WSGIRun(flow_of(client, Request("i/1", 1, scope(), b"", credit=credit))).run(app)
    assert sum(len(part.body) for part in client.parts) + len(reply.body) == size
    assert max(on_its_way) == credit


def test_a_generator_is_closed_when_its_client_has_gone() -> None:
    closed: list[type[BaseException]] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            for _ in range(9):
                yield b"x"
        except GeneratorExit as error:
            closed.append(type(error))
            raise

    client = Client([], [Gone("i/1", b"5-0")])
    reply = WSGIRun(flow_of(client, Request("i/1", 1, scope(), b""))).run(app)
    assert closed == [GeneratorExit]
    assert (len(client.parts), reply.aborted) == (2, True)


def test_a_client_that_has_gone_is_not_logged_as_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    client = Client([Gone("i/1", b"5-0")])
    caplog.set_level("WARNING")
    WSGIRun(flow_of(client, Request("i/1", 1, scope("POST"), b"", more=True))).run(app)
    assert caplog.messages == []


def test_an_application_may_catch_that_its_client_has_gone() -> None:
    caught: list[Exception] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].readline()
        except OSError as error:
            caught.append(error)
        return hello(environ, start_response)

    request = Request("i/1", 1, scope("POST"), b"", more=True)
    reply = WSGIRun(flow_of(Client([Gone("i/1", b"5-0")]), request)).run(validator(app))
    assert [type(error) for error in caught] == [ClientDisconnected]
    assert reply.status == 200


def test_a_large_body_is_pulled_as_it_is_read() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [environ["wsgi.input"].readline(), b"|", environ["wsgi.input"].read(2)]

    client = Client([Chunk("i/1", b"5-0", 1, b"a\nb", True)], [Chunk("i/1", b"5-0", 2, b"c", False)])
    reply = WSGIRun(flow_of(client, Request("i/1", 1, scope("POST"), b"", more=True))).run(validator(app))
    assert b"".join(part.body for part in (*client.parts, reply)) == b"a\n|bc"
    assert client.wanted == [WINDOW_BYTES]


def test_what_ends_a_response_in_the_applications_stead_is_whole_or_cuts_it_off() -> None:
    client = Client()
    run = WSGIRun(flow_of(client, Request("i/1", 1, scope(), b"")))
    fresh = run.failure(504, "too long")
    assert (fresh.status, fresh.body, fresh.more, fresh.aborted) == (504, b"too long\n", False, False)

    ends: list[Response] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        ends.append(begun.failure(504, "too long"))

    begun = WSGIRun(flow_of(client, Request("i/1", 1, scope(), b"")))
    begun.run(app)
    assert [(end.sequence, end.body, end.aborted) for end in ends] == [(1, b"", True)]
