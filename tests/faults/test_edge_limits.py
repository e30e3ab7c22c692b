"""What clients may cost an edge: bytes, connections and time."""

import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from asgictl.layers.redis.keys import Keys
from tests.conftest import Machine, until
from tests.faults.conftest import (
    HANG_SECONDS,
    Site,
    body_of,
    both_modes,
    exchange,
    handshake,
    head,
    is_closed,
    logged,
    request,
    site_of,
    status_of,
)

SOURCE = """
    import time
    from pathlib import Path

    from asgictl import Application, path

    ran = []


    def site(environ, start_response):
        name = environ["PATH_INFO"]
        if name == "/slow":
            while not Path("go").exists():
                time.sleep(0.02)
        elif name.startswith("/uploads"):
            ran.append(name)
            environ["wsgi.input"].read()
        body = repr(ran).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


    def echo(message):
        message.reply(text=message.text)


    app = Application(http=site, websocket=[path("/ws", receive=echo)])
"""
PEER = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ.get('REMOTE_ADDR')} {environ['wsgi.url_scheme']}".encode()]
"""
site = site_of(SOURCE, "--workers", "1")
HEADERS = {"many": [b"X-%d: a" % number for number in range(300)], "long": [b"X-Long: " + b"a" * 20_000]}


def send_all(client: socket.socket, data: bytes, seconds: float) -> bytes:
    """Send bytes, which the server may refuse on the way; return what it answers first."""
    client.settimeout(seconds)
    with suppress(OSError):
        client.sendall(data)
    with suppress(OSError):
        return client.recv(1 << 16)
    return b""


@pytest.mark.parametrize("headers", HEADERS)
@both_modes
def test_a_handshake_with_too_large_a_head_is_answered(site: Site, mode: str, headers: str) -> None:
    """A12; RFC 6585, section 5."""
    assert status_of(head(site(mode), handshake(b"/ws", *HEADERS[headers]))) in {400, 431}


@both_modes
def test_a_header_line_without_end_is_refused(site: Site, mode: str) -> None:
    """A11; the same of 1 MiB."""
    machine = site(mode)
    with socket.create_connection(("127.0.0.1", machine.port)) as client:
        answer = send_all(client, b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (1 << 20), HANG_SECONDS)
        assert status_of(answer) in {400, 431}
        assert is_closed(client, HANG_SECONDS)


@both_modes
def test_too_many_headers_are_refused(site: Site, mode: str) -> None:
    """A11; a request with 2,000 of them."""
    headers = [b"X-%d: a" % number for number in range(2000)]
    assert status_of(exchange(site(mode), request(b"/", *headers), HANG_SECONDS)) in {400, 431}


def held(machine: Machine) -> tuple[int, int]:
    """Return how many requests run, and how many wait."""
    stream = Keys("default").channel("http.request")
    with redis.Redis(unix_socket_path=f"{machine.runtime}/asgictl/default/redis.sock") as client:
        pending: Any = client.xpending(stream, "workers")
        length: Any = client.xlen(stream)
    return pending["pending"], length - pending["pending"]


@pytest.mark.parametrize(("sent", "of"), [("1000", "1000"), ("1048576", "2097152")])
def test_nothing_runs_for_a_client_that_left_before_a_worker_was_free(site: Site, sent: str, of: str) -> None:
    """A17; a client that sent so many bytes of a body of so many."""
    machine = site("split")
    assert machine.directory
    path = f"/uploads/{sent}/{of}"
    with socket.create_connection(("127.0.0.1", machine.port)) as slow:
        slow.sendall(request(b"/slow"))
        until(lambda: held(machine) == (1, 0), "it runs, on the only worker")
        with socket.create_connection(("127.0.0.1", machine.port)) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {of}\r\n\r\n".encode()
            client.sendall(head + b"a" * int(sent))
            until(lambda: held(machine) == (1, 1), "the other waits")
        until(lambda: held(machine) == (1, 0), "it is given up")
        (machine.directory / "go").touch()
        slow.settimeout(60)
        assert status_of(slow.recv(1 << 16)) == 200
    assert path not in body_of(exchange(machine, request(b"/"))).decode()
    (machine.directory / "go").unlink()


@both_modes
def test_a_unix_socket_trusts_its_proxy(machine: Machine, mode: str, tmp_path: Path) -> None:
    """B15: of a peer without an address, X-Forwarded headers count by default."""
    path = machine.runtime / "s"
    (tmp_path / "app.py").write_text(PEER)
    machine.directory = tmp_path
    done = machine.run("start", "app:app", "--mode", mode, "--workers", "1", "--bind", f"unix:{path}", "-d")
    if done.returncode:
        raise RuntimeError(done.stderr)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(request(b"/", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https"))
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert body_of(answer) == b"1.1.1.1 https"


def test_a_root_path_that_no_request_can_have_is_refused(machine: Machine) -> None:
    """B14."""
    done = machine.run("start", "--workers", "1", "--root-path", "/é", "--bind", f"127.0.0.1:{machine.port}", "-d")
    assert done.returncode == 2
    assert "--root-path" in done.stderr


def server_of(machine: Machine) -> psutil.Process:
    """Return the process that holds the connections."""
    role = "interface" if machine.mode == "split" else "server"
    found = machine.status()["ready"]
    return psutil.Process(next(each["pid"] for each in found if each["role"] == role))


@pytest.mark.soak
@both_modes
def test_pings_of_a_client_that_reads_nothing_cost_no_memory(site: Site, mode: str) -> None:
    """A11; it may be closed, or be answered the newest one."""
    machine = site(mode)
    server = server_of(machine)
    before = server.memory_info().rss
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel keeps little of what is not read
        client.settimeout(60)
        client.connect(("127.0.0.1", machine.port))
        client.sendall(handshake(b"/ws"))
        client.recv(1 << 16)
        pings = b"\x89\x80\0\0\0\0" * 10_000
        with suppress(OSError):
            for _ in range(140):
                client.sendall(pings)
        exchange(machine, request(b"/"))
        grown = server.memory_info().rss - before
    assert grown < 40 << 20


UNFINISHED = {
    "silent": b"",
    "line": b"GET / HT",
    "header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
    "handshake": handshake(b"/ws")[:-20],
}


@pytest.mark.soak
@both_modes
def test_what_a_client_does_not_finish_is_closed_in_time(site: Site, mode: str) -> None:
    """A11; in a minute."""
    machine = site(mode)
    with ExitStack() as opened:
        clients = []
        for data in [*UNFINISHED.values()] * 20:
            clients.append(opened.enter_context(socket.create_connection(("127.0.0.1", machine.port))))
            clients[-1].sendall(data)
        deadline = time.monotonic() + 70
        assert all(is_closed(each, max(deadline - time.monotonic(), 0.01)) for each in clients)


IDLE, FILES = 1500, 1024


def start_with(machine: Machine, files: int, mode: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Start an instance whose processes may have so many files open."""
    command = machine.command(
        *("start", "app:app", "--mode", mode, "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", "-d", *arguments)
    )
    return subprocess.run(
        ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command],
        env=machine.environment,
        cwd=machine.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.soak
@both_modes
def test_more_idle_connections_than_files(machine: Machine, mode: str, tmp_path: Path) -> None:
    """A24: idle connections go first, and it is told."""
    (tmp_path / "app.py").write_text(PEER)
    machine.directory = tmp_path
    done = start_with(machine, FILES, mode)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    with ExitStack() as opened:
        for _ in range(IDLE):
            opened.enter_context(socket.create_connection(("127.0.0.1", machine.port)))
        answers = [status_of(exchange(machine, request(b"/"), HANG_SECONDS)) for _ in range(3)]
        assert answers == [200] * 3
        until(lambda: machine.status()["shed"], "the status knows it")
        told = machine.run("status").stdout + logged(machine)
    assert "files" in told.partition("a process")[2]


@pytest.mark.soak
@pytest.mark.parametrize("files", [64, 256])
@both_modes
def test_too_few_files_to_start_are_named(machine: Machine, mode: str, files: int, tmp_path: Path) -> None:
    """A24."""
    (tmp_path / "app.py").write_text(PEER)
    machine.directory = tmp_path
    done = start_with(machine, files, mode)
    text = done.stdout + done.stderr
    assert "files" in text
    assert "minfds" not in text  # supervisord's word, in a file that is ours
    assert "Traceback" not in text
