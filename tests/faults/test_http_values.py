"""What applications put into responses, and what they are told of requests: both modes, WSGI and ASGI."""

import pytest

from tests.conftest import Machine, until
from tests.faults.conftest import (
    HANG_SECONDS,
    Site,
    body_of,
    both_modes,
    exchange,
    handshake,
    head,
    logged,
    request,
    site_of,
    status_of,
)

site = site_of(
    """
    from asgictl import Application, path

    BAD_VALUES = {"control": ("X-Bad", "a\\x01b"), "split": ("X-Bad", "a\\r\\nb: c"), "name": ("X Bad", "a"),
                  "length": ("Content-Length", "+5")}
    LENGTHS = {"short": ("Content-Length", "90"), "long": ("Content-Length", "0")}
    HOPS = [("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=9"), ("Upgrade", "h2c"),
            ("Proxy-Connection", "keep-alive"), ("TE", "trailers"), ("Transfer-Encoding", "gzip, chunked"),
            ("X-End", "1")]


    def site(environ, start_response):
        name, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
        status, headers = "200 OK", []
        if name == "status":
            status = argument + " X"
        elif name == "bad":
            headers = [BAD_VALUES[argument.partition("/")[0]]]
        elif name == "body":
            headers = [LENGTHS[argument]]
        elif name == "hops":
            headers = HOPS
        start_response(status, headers)
        return [ascii(environ["PATH_INFO"]).encode()]


    async def asgi(scope, receive, send):
        name, _, argument = scope["path"].removeprefix("/asgi/").partition("/")
        headers, status = [], 200
        if name == "status":
            status = int(argument)
        elif name == "body":
            headers = [tuple(each.encode() for each in LENGTHS[argument])]
        elif name == "hops":
            headers = [tuple(each.encode() for each in header) for header in HOPS]
        elif name == "bad":
            headers = [tuple(each.encode() for each in BAD_VALUES[argument.partition("/")[0]])]
        elif name == "lazy":
            headers = (each for each in [(b"x-a", b"1"), (b"x-b", b"2")])
        elif name == "tuple":
            headers = ((b"x-a", b"1"), (b"x-b", b"2"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})


    def accept(message):
        if message.params["what"] == "value":
            message.accept(headers=[(b"x", b"a\\r\\nb: c")])
        elif message.params["what"] == "name":
            message.accept(headers=[(b"x y", b"a")])
        else:
            message.accept(subprotocol="a\\r\\nx: y")


    app = Application(http={"/": site, "/asgi": asgi}, websocket=[path("/accept/{what}", connect=accept)])
    """,
    *("--workers", "1"),
)


@pytest.mark.parametrize("path", [b"/p_%E5", b"/%FF%FE/a"])
@both_modes
def test_the_bytes_of_a_path_reach_wsgi_as_latin_1(site: Site, mode: str, path: bytes) -> None:
    """B2; PEP 3333, "Unicode Issues"."""
    answer = exchange(site(mode), request(path))
    assert body_of(answer) == ascii(path.replace(b"%", b"\\x").decode("unicode_escape")).encode()


@both_modes
def test_utf_8_in_a_path_reaches_wsgi_as_latin_1(site: Site, mode: str) -> None:
    """B2."""
    assert body_of(exchange(site(mode), request(b"/p_%C3%A5"))) == ascii("/p_\xc3\xa5").encode()


@pytest.mark.parametrize("value", ["control", "split", "name", "length"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@both_modes
def test_a_header_that_cannot_be_sent_is_a_500_with_one_line(site: Site, mode: str, kind: str, value: str) -> None:
    """B6; RFC 9110, section 5.5."""
    check_failed(site(mode), f"{'/asgi' if kind == 'asgi' else ''}/bad/{value}")


@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@both_modes
def test_a_body_of_another_length_than_announced_is_a_500_with_one_line(
    site: Site, mode: str, kind: str, length: str
) -> None:
    """B6's sibling; RFC 9110, section 8.6."""
    check_failed(site(mode), f"{'/asgi' if kind == 'asgi' else ''}/body/{length}")


def check_failed(machine: Machine, path: str) -> None:
    """Check that a path's answer is a 500, and that one line of the log names the target and it."""
    answer = exchange(machine, request(path.encode()), HANG_SECONDS)
    assert status_of(answer) == 500
    until(lambda: f" {path} " in logged(machine), "it is logged")
    lines = [line for line in logged(machine).splitlines() if f" {path} " in line]
    assert len(lines) == 1
    assert "app:app" in lines[0]


@pytest.mark.parametrize("prefix", [b"/", b"/asgi/"])
@both_modes
def test_a_status_that_nobody_knows_is_passed_on(site: Site, mode: str, prefix: bytes) -> None:
    """B6, as gunicorn has it."""
    assert status_of(exchange(site(mode), request(prefix + b"status/600"))) == 600


@pytest.mark.parametrize("prefix", [b"/", b"/asgi/"])
@both_modes
def test_headers_of_the_connection_are_the_servers(site: Site, mode: str, prefix: bytes) -> None:
    """RFC 9110, section 7.6.1."""
    answer = exchange(site(mode), request(prefix + b"hops"))
    names = [line.partition(b":")[0].lower() for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert set(names) <= {b"date", b"connection", b"content-length", b"transfer-encoding", b"x-end"}
    assert len(names) == len(set(names))
    assert b"gzip" not in answer


@pytest.mark.parametrize("headers", ["lazy", "tuple"])
@both_modes
def test_headers_of_asgi_are_any_iterable(site: Site, mode: str, headers: str) -> None:
    """B7; ASGI, "Response Start": an iterable of pairs."""
    answer = exchange(site(mode), request(b"/asgi/%b" % headers.encode())).lower()
    assert b"x-a: 1\r\nx-b: 2\r\n" in answer


@pytest.mark.parametrize("what", ["value", "name", "subprotocol"])
@both_modes
def test_an_accept_that_cannot_be_sent_is_a_500_at_once(site: Site, mode: str, what: str) -> None:
    """B16."""
    machine = site(mode)
    answer = head(machine, handshake(b"/accept/%b" % what.encode()))
    assert status_of(answer) == 500
    until(lambda: sum(f"/accept/{what}" in line for line in logged(machine).splitlines()) == 1, "one line names it")
