"""Where messages begin and end, and for whom requests are: RFC 9112, both modes, WSGI and ASGI."""

import pytest

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

    BODY = [b"hello"]


    def site(environ, start_response):
        name = environ["PATH_INFO"].lstrip("/")
        if name in {"204", "304"}:
            start_response(name + " X", [("Content-Length", "5")] if name == "304" else [])
            return BODY
        if name == "401":
            start_response("401 X", [("Content-Length", "5")])
            return BODY
        if name == "peer":
            start_response("200 OK", [])
            return [f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']}".encode()]
        chunked = name.startswith("chunked")
        start_response("200 OK", [("Transfer-Encoding", "chunked")] if chunked else [])
        return iter([b"he", b"llo"]) if name.endswith("parts") else BODY


    async def asgi(scope, receive, send):
        name = scope["path"].rpartition("/")[2]
        status, headers = int(name) if name.isdigit() else 200, []
        if name in {"304", "401"}:
            headers = [(b"content-length", b"5")]
        elif name.startswith("chunked"):
            headers = [(b"transfer-encoding", b"chunked")]
        body = b"hello"
        if name == "peer":
            body = f"{(scope['client'] or [None])[0]} {scope['scheme']}".encode()
            headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if name.endswith("parts"):
            await send({"type": "http.response.body", "body": b"he", "more_body": True})
            body = b"llo"
        await send({"type": "http.response.body", "body": body})


    def refuse(message):
        message.close()


    app = Application(http={"/": site, "/asgi": asgi}, websocket=[path("/refused", connect=refuse), path("/open")])
    """,
    *("--workers", "1"),
)
PREFIXES = {"wsgi": b"/", "asgi": b"/asgi/"}
both_kinds = pytest.mark.parametrize("kind", PREFIXES)


@pytest.mark.parametrize("status", ["204", "304"])
@both_kinds
@both_modes
def test_a_response_that_has_no_body_is_sent_none(site: Site, mode: str, kind: str, status: str) -> None:
    """B3; RFC 9112, section 6.3."""
    answer = exchange(site(mode), request(PREFIXES[kind] + status.encode()))
    assert status_of(answer) == int(status)
    assert body_of(answer) == b""


@pytest.mark.parametrize("path", ["parts", "chunked", "chunked-parts"])
@both_kinds
@both_modes
def test_http_1_0_is_sent_no_chunks(site: Site, mode: str, kind: str, path: str) -> None:
    """B4; RFC 9112, section 6.1."""
    answer = exchange(
        site(mode), b"GET %b HTTP/1.0\r\nHost: x\r\n\r\n" % (PREFIXES[kind] + path.encode()), HANG_SECONDS
    )
    assert b"transfer-encoding" not in answer.lower()
    assert body_of(answer) == b"hello"


@pytest.mark.parametrize("path", ["chunked", "chunked-parts"])
@both_kinds
@both_modes
def test_a_response_has_one_framing(site: Site, mode: str, kind: str, path: str) -> None:
    """B5; RFC 9112, section 6.2."""
    answer = exchange(site(mode), request(PREFIXES[kind] + path.encode()), HANG_SECONDS)
    headers = answer.partition(b"\r\n\r\n")[0].lower()
    framing = headers.count(b"\r\ntransfer-encoding: chunked"), headers.count(b"\r\ncontent-length: 5")
    assert framing in {(0, 1), (1, 0)}
    chunks = {b"5\r\nhello\r\n0\r\n\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"}
    assert body_of(answer) in ({b"hello"} if framing[1] else chunks)


HOSTS = {"two": b"Host: x\r\nHost: y\r\n", "same": b"Host: x\r\nHost: x\r\n", "none": b""}


@pytest.mark.parametrize("hosts", HOSTS)
@both_kinds
@both_modes
def test_a_request_has_one_host(site: Site, mode: str, kind: str, hosts: str) -> None:
    """B8; RFC 9112, section 3.2."""
    data = b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (PREFIXES[kind], HOSTS[hosts])
    assert status_of(exchange(site(mode), data)) == 400


@pytest.mark.parametrize("hosts", HOSTS)
@both_modes
def test_a_handshake_has_one_host(site: Site, mode: str, hosts: str) -> None:
    """B8; RFC 6455, section 4.2.1."""
    shaken = handshake(b"/open").replace(b"Host: x\r\n", HOSTS[hosts])
    assert status_of(head(site(mode), shaken)) == 400


@both_modes
def test_http_1_0_needs_no_host(site: Site, mode: str) -> None:
    """B8."""
    assert status_of(exchange(site(mode), b"GET / HTTP/1.0\r\n\r\n")) == 200


@both_kinds
@both_modes
def test_an_answer_waits_for_no_body_that_nobody_reads(site: Site, mode: str, kind: str) -> None:
    """B12."""
    data = b"POST %b401 HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n" % PREFIXES[kind]
    assert status_of(head(site(mode), data)) == 401


@pytest.mark.parametrize("path", [b"/refused", b"/nowhere"])
@both_modes
def test_a_refused_handshake_logs_nothing(site: Site, mode: str, path: bytes) -> None:
    """B13."""
    machine = site(mode)
    before = logged(machine).count("ERROR")
    assert status_of(head(machine, handshake(path))) in {403, 404}
    exchange(machine, request(b"/"))  # what the handshake logged stands before it
    assert logged(machine).count("ERROR") == before


FORWARDED = {
    "tabs": (b"X-Forwarded-For: \t1.1.1.1\t", b"1.1.1.1 http"),
    "spaces": (b"X-Forwarded-For:   1.1.1.1  ", b"1.1.1.1 http"),
    "list": (b"X-Forwarded-For: 2.2.2.2,\t1.1.1.1\t,127.0.0.1", b"1.1.1.1 http"),
    "https": (b"X-Forwarded-Proto:\thttps\t", b"127.0.0.1 https"),
    "wss": (b"X-Forwarded-Proto: wss", b"127.0.0.1 https"),
    "ws": (b"X-Forwarded-Proto: ws", b"127.0.0.1 http"),
}


@pytest.mark.parametrize("header", FORWARDED)
@both_kinds
@both_modes
def test_what_a_trusted_proxy_says(site: Site, mode: str, kind: str, header: str) -> None:
    """B17; RFC 9110, section 5.6.3."""
    sent, right = FORWARDED[header]
    assert body_of(exchange(site(mode), request(PREFIXES[kind] + b"peer", sent))) == right


@pytest.mark.parametrize("value", [b"junk", b"1.1.1.1.1", b"<script>"])
@both_kinds
@both_modes
def test_who_is_no_address_is_nobody(site: Site, mode: str, kind: str, value: bytes) -> None:
    """B17: an address, or nothing."""
    answer = exchange(site(mode), request(PREFIXES[kind] + b"peer", b"X-Forwarded-For: " + value))
    assert status_of(answer) == 200
    assert value not in answer
