"""Bodies, responses and clients that leave, as a client on a socket sees them."""

import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.conftest import MODES, Machine, new_machine, until
from tests.scenarios.test_demo import SECONDS, get

APPLICATION = """
import os, time
from pathlib import Path

def site(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    headers, status, body = [("X-One", "1"), ("X-Two", "2"), ("X-One", "3")], "200 OK", []
    if path == "/count":
        count = 0
        while data := environ["wsgi.input"].read(10_000):
            count += len(data)
        body = [str(count).encode()]
    elif path == "/refuse":
        status, body = "403 Forbidden", [b"no"]
    elif path == "/whole":
        body = [b"x" * int(query)]
    elif path == "/stream":
        body = stream(query)
    elif path == "/slow":
        Path("ran-" + query).touch()
        while not Path("go-" + query).exists():
            time.sleep(0.02)
    elif path == "/seen":
        names = "REMOTE_ADDR wsgi.url_scheme SCRIPT_NAME PATH_INFO RAW_URI QUERY_STRING"
        body = ["|".join(environ[name] for name in names.split()).encode()]
    elif path in ("/204", "/304"):
        status = path[1:] + " Whatever"
    start_response(status, headers)
    return body

def stream(name):
    try:
        for _ in range(600):
            yield b"tick"
            time.sleep(0.1)
    finally:
        Path("closed-" + name).touch()
"""


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with new_machine() as made:
        made.directory = tmp_path_factory.mktemp("site")
        made.mode = request.param
        (made.directory / "site_app.py").write_text(APPLICATION)
        options = ["--max-body-bytes", "5000000", "--root-path", "/below"]
        made.start("site_app:site", "--mode", request.param, "--workers", "1", *options)
        yield made


def split_only(site: Machine, why: str) -> None:
    if site.mode != "split":
        pytest.skip(why)


class Client:
    """A connection on which a test writes and reads HTTP/1.1 itself."""

    def __init__(self, machine: Machine) -> None:
        self.socket = socket.create_connection(("127.0.0.1", machine.port), SECONDS)
        self.heard = b""

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.socket.sendall("\r\n".join((*lines, "Host: example", "", "")).encode() + body)

    def hear(self, until: bytes) -> bytes:
        """Return everything up to and with `until`."""
        while until not in self.heard:
            data = self.socket.recv(65536)
            assert data, f"ended after {self.heard[:300]!r}"
            self.heard += data
        before, _, self.heard = self.heard.partition(until)
        return before + until


@contextmanager
def client(machine: Machine) -> Iterator[Client]:
    made = Client(machine)
    with made.socket:
        yield made


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 4_999_999])
def test_a_body_of_any_size_is_read_whole(site: Machine, size: int) -> None:
    assert get(site.url + "/count", b"x" * size)[2] == str(size).encode()


def test_a_chunked_body_is_read_whole(site: Machine) -> None:
    def pieces() -> Iterator[bytes]:
        for size in (1, 70_000, 3):
            yield b"x" * size

    request = urllib.request.Request(site.url + "/count", pieces(), method="POST")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        assert response.read() == b"70004"


def test_a_body_above_the_limit_is_413(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /count HTTP/1.1", "Content-Length: 5000001")
        assert raw.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 413")
    with client(site) as raw:
        raw.send("POST /count HTTP/1.1", "Transfer-Encoding: chunked")
        raw.socket.sendall(50 * (b"186a0\r\n" + b"x" * 100_000 + b"\r\n") + b"1\r\nx\r\n")
        assert raw.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert get(site.url + "/count", b"after")[2] == b"5"


def test_100_continue_is_sent_when_the_application_reads(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /count HTTP/1.1", "Expect: 100-continue", "Content-Length: 5")
        assert raw.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        raw.socket.sendall(b"hello")
        raw.hear(b"200 OK")
        raw.hear(b"\r\n\r\n5")


def test_100_continue_is_not_sent_when_it_answers_without_reading(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /refuse HTTP/1.1", "Expect: 100-continue", "Content-Length: 5")
        assert raw.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 403")


def test_a_response_comes_before_the_body_was_sent(site: Machine) -> None:
    with client(site) as raw:
        raw.send("POST /refuse HTTP/1.1", "Content-Length: 1000000", body=b"only the beginning")
        raw.hear(b"403")


@pytest.mark.parametrize("size", [1 << 16, (1 << 20) + 1, 20_000_000])
def test_a_large_response_arrives_whole_with_its_length(site: Machine, size: int) -> None:
    with urllib.request.urlopen(f"{site.url}/whole?{size}", timeout=SECONDS) as response:
        assert response.headers["Content-Length"] == str(size)
        assert len(response.read()) == size


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body_keep_the_connection(site: Machine, status: int) -> None:
    with client(site) as raw:
        for _ in range(2):
            raw.send(f"GET /{status} HTTP/1.1")
            head = raw.hear(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d" % status)
            assert b"content-length" not in head.lower()


def test_head_has_no_body(site: Machine) -> None:
    with client(site) as raw:
        raw.send("HEAD /whole?100 HTTP/1.1")
        raw.hear(b"\r\n\r\n")
        raw.send("GET /204 HTTP/1.1")
        assert raw.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 204")


def test_repeated_headers_keep_their_order(site: Machine) -> None:
    with client(site) as raw:
        raw.send("GET /204 HTTP/1.1")
        names = [line.partition(b":") for line in raw.hear(b"\r\n\r\n").lower().splitlines()]
        assert [value.strip() for name, _, value in names if name == b"x-one"] == [b"1", b"3"]


def test_the_application_sees_what_a_trusted_proxy_says(site: Machine) -> None:
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    request = urllib.request.Request(site.url + "/seen?a=%20b", headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        seen = response.read().decode().split("|")
    assert seen[:4] == ["192.0.2.7", "https", "/below", "/seen"]
    assert seen[5] == "a=%20b"


def test_a_generator_is_closed_when_its_client_leaves(site: Machine) -> None:
    assert site.directory
    with client(site) as raw:
        raw.send("GET /stream?one HTTP/1.1")
        raw.hear(b"tick")
    until((site.directory / "closed-one").exists, "the generator is closed")
    assert get(site.url + "/count", b"next")[2] == b"4"


def test_a_request_whose_client_has_left_is_not_run(site: Machine) -> None:
    split_only(site, "it is seen in Redis that a request waits")
    assert site.directory
    with client(site) as first:
        first.send("GET /slow?first HTTP/1.1")
        until((site.directory / "ran-first").exists, "it runs, on the only worker")
        with client(site) as gone:
            gone.send("GET /slow?gone HTTP/1.1")
            until(lambda: waiting(site) == 1, "it waits")
        until(lambda: waiting(site) == 0, "it does not any more")
        (site.directory / "go-first").touch()
        first.hear(b"200 OK")
    assert get(site.url + "/count", b"next")[2] == b"4"
    assert not (site.directory / "ran-gone").exists()


def waiting(machine: Machine) -> int:
    """Return how many requests no worker has taken yet."""
    import redis

    with redis.Redis.from_url(f"unix://{machine.runtime}/asgictl/default/redis.sock") as client:
        stream = "asgictl:{default}:ch:http.request"
        length = int(client.xlen(stream))
        return length - int(client.xpending(stream, "workers")["pending"])


def test_a_worker_that_dies_cuts_what_it_streams_and_answers_502_for_what_it_reads(site: Machine) -> None:
    split_only(site, "in-process the connection dies with the process")
    with client(site) as reading, client(site) as streaming:
        streaming.send("GET /stream?dies HTTP/1.1")
        streaming.hear(b"tick")
        os.kill(worker(site), signal.SIGKILL)
        with pytest.raises((AssertionError, OSError)):
            streaming.hear(b"\r\n0\r\n\r\n")
        reading.send("POST /count HTTP/1.1", "Content-Length: 1000000", body=b"x" * 100_000)
        before = until_reading(site)
        os.kill(before, signal.SIGKILL)
        reading.hear(b"502")
    until(lambda: get(site.url + "/count", b"lives")[2] == b"5", "another worker serves")


def worker(machine: Machine) -> int:
    ready = machine.status()["ready"]
    return next(int(report["pid"]) for report in ready if report["role"] == "worker")


def until_reading(machine: Machine) -> int:
    """Wait until a worker has a request in flight; returns its pid."""
    import redis

    with redis.Redis.from_url(f"unix://{machine.runtime}/asgictl/default/redis.sock") as client:
        stream = "asgictl:{default}:ch:http.request"
        until(lambda: client.xpending(stream, "workers")["pending"] == 1, "a worker reads")
    return worker(machine)


def test_an_untrusted_client_cannot_say_who_it_is(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    machine.directory = tmp_path
    machine.start("site_app:site", "--workers", "1", "--forwarded-allow-ips", "192.0.2.1")
    request = urllib.request.Request(machine.url + "/seen", headers={"X-Forwarded-For": "192.0.2.7"})
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        assert response.read().decode().startswith("127.0.0.1|http")


def test_past_the_capacity_503_says_when_to_come_again_and_status_counts_it(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)
    machine.directory = tmp_path
    machine.start("site_app:site", "--workers", "1", "--capacity", "2")
    with client(machine) as one, client(machine) as two:
        for each in (one, two):
            each.send("GET /slow?x HTTP/1.1")
        until(lambda: waiting(machine) == 1, "one runs, one waits")
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(machine.url + "/seen", timeout=SECONDS)
        with refused.value as response:
            assert (response.code, response.headers["Retry-After"]) == (503, "1")
        (tmp_path / "go-x").touch()
        for each in (one, two):
            each.hear(b"200 OK")
    until(lambda: "rejected: 1 × requests answered 503" in machine.run("status").stdout, "status counts it")
