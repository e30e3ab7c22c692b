"""The admin endpoint, as probes and Prometheus use it."""

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgictl.control.admin import SOCKET
from asgictl.control.channel_depths import Channel
from asgictl.telemetry.metrics import Figures
from tests.conftest import free_port
from tests.control.test_controller import reporting, run, run_dir, running_controller, until

__all__ = ["run_dir"]  # a fixture that each test here needs too


async def ask(request: str, port: int | None = None, host: str | None = "localhost") -> tuple[int, str]:
    """Return the status and the body. host: of its header; None for a request without it."""
    connection = asyncio.open_connection("127.0.0.1", port) if port else asyncio.open_unix_connection(SOCKET)
    reader, writer = await connection
    headers = [f"{request} HTTP/1.1", *([f"host: {host}"] if host is not None else []), "connection: close"]
    writer.write(("\r\n".join(headers) + "\r\n\r\n").encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


def serving(scenario: Callable[[], Awaitable[None]]) -> None:
    async def served() -> None:
        await until(Path(SOCKET).exists)
        await scenario()

    run(served)


def test_a_controller_is_alive_before_anything_is_ready() -> None:
    async def scenario() -> None:
        assert await ask("GET /healthz") == (200, "ok\n")
        assert await ask("GET /readyz") == (503, "no interface is ready, no worker is ready\n")
        lines = [await reporting(pid=pid, state="ready", role=role) for pid, role in ((7, "worker"), (8, "interface"))]
        await until(lambda: not running_controller().unready())
        assert await ask("GET /readyz") == (200, "ok\n")
        for line in lines:
            line.close()

    serving(scenario)


@pytest.mark.parametrize(
    ("request_line", "status"), [("GET /", 404), ("GET /metrics/../etc", 404), ("POST /healthz", 405)]
)
def test_what_is_not_served_is_refused(request_line: str, status: int) -> None:
    async def scenario() -> None:
        assert (await ask(request_line))[0] == status

    serving(scenario)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[
            (host, 200)
            for host in ("localhost", "LocalHost:9", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:1", None)
        ],
        *[(host, 403) for host in ("elsewhere.example", "localhost.example", "127.0.0.1.example:80", "::1", "")],
        ("localhost:8000@elsewhere.example", 403),
    ],
)
def test_a_page_whose_name_leads_here_reads_nothing(host: str | None, status: int) -> None:
    """DNS rebinding: a browser says the name that it was given."""

    async def scenario() -> None:
        assert (await ask("GET /healthz", host=host))[0] == status

    serving(scenario)


def test_the_socket_is_its_owners_alone() -> None:
    async def scenario() -> None:
        assert os.stat(SOCKET).st_mode == stat.S_IFSOCK | 0o600

    serving(scenario)


@pytest.mark.parametrize("garbage", [b"\0" * 100_000, b"GET", b"GET / HTTP/9.9\r\n\r\n", os.urandom(65536)])
def test_garbage_is_cut_off_and_the_controller_goes_on(garbage: bytes) -> None:
    async def scenario() -> None:
        reader, writer = await asyncio.open_unix_connection(SOCKET)
        writer.write(garbage)
        writer.write_eof()
        with suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert (await ask("GET /healthz"))[0] == 200

    serving(scenario)


def test_a_port_is_served_where_one_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()

    async def scenario() -> None:
        assert await ask("GET /healthz", port) == (200, "ok\n")

    monkeypatch.setattr("asgictl.control.controller.Controller.__init__.__defaults__", (port,))
    serving(scenario)


def test_metrics_are_what_processes_have_counted() -> None:
    async def scenario() -> None:
        controller = running_controller()
        lines = [
            await reporting(pid=os.getpid(), state="ready", threads=3),
            await reporting(pid=8, state="ready", role="server", process="server", threads=2),
        ]
        await until(lambda: not controller.unready())
        figures = Figures(events=7, rejections={'a "late" one': 2}, websockets=4, moved=5, refused=2, overdue=1)
        for seconds in (0.1, 0.1, 500.0):
            figures.answer(200, seconds, 0.0)
        controller.history.add(os.getpid(), figures)
        controller.history.add(8, Figures(events=1))
        controller.channels = {"http.request": Channel(5, 2, 1.5, 0)}
        status, text = await ask("GET /metrics")
        assert status == 200
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        who = (("process", "worker-00"), ("role", "worker"))
        assert samples["asgictl_events_total", *who] == 7
        assert samples["asgictl_events_total", ("process", "server/8"), ("role", "server")] == 1
        assert samples["asgictl_requests_total", *who, ("status", "200")] == 3
        assert samples["asgictl_rejections_total", who[0], ("reason", 'a "late" one'), who[1]] == 2
        assert samples["asgictl_open_websockets", *who] == 4
        kinds = ("handed_over", "handover_rejected", "handover_closed")
        counts = [samples[f"asgictl_websockets_{kind}_total", *who] for kind in kinds]
        assert counts == [5, 2, 1]
        assert samples["asgictl_threads", *who] == 3
        assert samples["asgictl_channel_depth", ("channel", "http.request")] == 5
        assert samples["asgictl_channel_oldest_event_age_seconds", ("channel", "http.request")] == 1.5
        assert samples["asgictl_resident_memory_bytes", *who] > 1 << 20
        name = "asgictl_request_duration_seconds"
        assert samples[f"{name}_bucket", ("le", "0.1"), *who] == 2
        assert samples[f"{name}_bucket", ("le", "+Inf"), *who] == samples[f"{name}_count", *who] == 3
        assert samples[f"{name}_sum", *who] == pytest.approx(500.2)
        for line in lines:
            line.close()

    serving(scenario)


def test_status_is_unavailable_without_supervisord() -> None:
    async def scenario() -> None:
        status, body = await ask("GET /status")
        assert (status, json.loads(body)) == (503, {})

    serving(scenario)
