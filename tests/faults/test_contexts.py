"""What events leave behind for those that run after them in the same process, and what the process itself is given."""

import contextlib
import textwrap
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgictl.errors import TargetError
from tests.conftest import Machine, until
from tests.faults.conftest import HANG_SECONDS, Serve, Site, body_of, both_modes, exchange, request, site_of, status_of

site = site_of(
    '''
    import os
    import subprocess
    from contextvars import ContextVar

    from asgictl import Application, Channel, path

    seen = ContextVar("seen", default="nothing")
    told = []


    def run(order):
        """Set the variable, or return what it is; "set VALUE", or "get"."""
        verb, _, value = order.partition(" ")
        if verb == "set":
            seen.set(value)
        elif verb == "cat":
            done = subprocess.run(["cat"], capture_output=True, timeout=0.5)
            return f"{done.returncode} {len(done.stdout)}"
        elif verb == "stdin":
            return os.readlink("/proc/self/fd/0")
        return seen.get()


    def site(environ, start_response):
        order = environ["QUERY_STRING"].replace("+", " ")
        name = environ["PATH_INFO"]
        if name == "/job":
            Channel("jobs").send({"order": order})
        answer = repr(told) if name == "/told" else "sent" if name == "/job" else run(order)
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer.encode()]


    async def asgi(scope, receive, send):
        body = run(scope["query_string"].decode().replace("+", " ")).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


    def sync(message):
        message.reply(text=run(message.text))


    async def asynchronous(message):
        message.reply(text=run(message.text))


    def job(message):
        told.append(f"{message.content['order']}: {run(message.content['order'])}")


    app = Application(
        http={"/": site, "/asgi": asgi},
        websocket=[path("/sync", receive=sync), path("/async", receive=asynchronous)],
        background={"jobs": job},
    )
    ''',
    *("--workers", "1", "--threads", "1"),
)
KINDS = ["wsgi", "asgi", "sync", "async", "job"]


def told(machine: Machine) -> str:
    """Return what jobs have said."""
    return body_of(exchange(machine, request(b"/told"))).decode()


def run(machine: Machine, kind: str, order: str) -> str:
    """Have an event of this kind run an order; return what it says, of a job nothing."""
    if kind in {"sync", "async"}:
        with connect(f"{machine.ws}/{kind}", open_timeout=60, close_timeout=0.2) as client:
            client.send(order)
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                return str(client.recv(HANG_SECONDS))
            return "no answer"
    path = {"wsgi": b"/", "asgi": b"/asgi", "job": b"/job"}[kind]
    answer = exchange(machine, request(path + b"?" + order.replace(" ", "+").encode()), HANG_SECONDS)
    assert status_of(answer) == 200
    said = body_of(answer).decode()
    if kind == "job":
        until(lambda: order in told(machine), "the job ran")
        return told(machine).rpartition(f"{order}: ")[2].partition("'")[0]
    return said


@pytest.mark.parametrize("reader", KINDS)
@pytest.mark.parametrize("writer", KINDS)
@both_modes
def test_an_event_has_a_context_of_its_own(site: Site, mode: str, writer: str, reader: str) -> None:
    """C4: what one sets no other sees."""
    value = f"{writer}-{reader}"
    assert run(site(mode), writer, f"set {value}") == value
    assert run(site(mode), reader, f"get {value}") != value


@both_modes
def test_a_request_that_waited_for_a_response_has_a_context_of_its_own(site: Site, mode: str) -> None:
    """C4: of requests in one segment the second begins when the first one's application sends its end."""
    first = request(b"/asgi?set+pipelined").replace(b"Connection: close\r\n", b"")
    answer = exchange(site(mode), first + request(b"/asgi?get"))
    assert (answer.count(b"pipelined"), answer.endswith(b"nothing")) == (1, True)


@pytest.mark.parametrize("kind", KINDS)
@both_modes
def test_a_process_that_an_event_starts_reads_nothing(site: Site, mode: str, kind: str) -> None:
    """C5: standard input is /dev/null."""
    assert run(site(mode), kind, "stdin") == "/dev/null"


@pytest.mark.parametrize("kind", ["wsgi", "sync"])
@both_modes
def test_cat_ends(site: Site, mode: str, kind: str) -> None:
    """C5."""
    assert run(site(mode), kind, "cat") == "0 0"


SIGNALS = """
    import signal


    def handle(*_):
        pass


    %s
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            try:
                %s
                await send({"type": "lifespan.startup.complete"})
            except ValueError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            body = b"its own" if signal.getsignal(signal.SIGUSR2) is handle else b"none"
            headers = [(b"content-length", b"%%d" %% len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
"""
HANDLE = "signal.signal(signal.SIGUSR2, handle)"


@both_modes
def test_a_module_may_handle_signals(serve: Serve, mode: str) -> None:
    """C7: in both modes TARGET's module is imported in the main thread."""
    source = SIGNALS % (HANDLE, "pass")
    assert body_of(exchange(serve(source, "--workers", "1", mode=mode), request(b"/"))) == b"its own"


def test_a_lifespan_may_handle_signals_in_process(serve: Serve) -> None:
    """C7."""
    source = SIGNALS % ("", HANDLE)
    assert body_of(exchange(serve(source, "--workers", "1", mode="inprocess"), request(b"/"))) == b"its own"


def test_a_lifespan_that_handles_signals_in_split_mode_is_told_where_to(machine: Machine, tmp_path: Path) -> None:
    """C7: a difference between the modes, since there ASGI runs beside the main thread."""
    (tmp_path / "app.py").write_text(textwrap.dedent(SIGNALS % ("", HANDLE)))
    machine.directory = tmp_path
    done = machine.run("start", "app:app", "--workers", "1", "--bind", f"127.0.0.1:{machine.port}", "-d")
    assert done.returncode == TargetError.exit_code
    assert "set signal handlers in the module that TARGET names" in done.stderr
