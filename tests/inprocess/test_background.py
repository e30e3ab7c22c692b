"""Background work beside an in-process server, on a real Redis; and what a server's environment says."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from asgictl.app.application import Application
from asgictl.app.message import BackgroundMessage
from asgictl.app.outside import Sender
from asgictl.inprocess import server as inprocess
from asgictl.inprocess.server import InProcess, create_application, create_backend, root_path_of, silent_seconds_of
from asgictl.interface.edge_asgi import ASGIEdge
from asgictl.telemetry.controller_client import Readiness
from asgictl.wire.messages import Job
from asgictl.wire.state import encode_state

READINESS = Readiness(None, "server", "server")


def test_jobs_run_in_the_servers_process_from_its_startup_to_its_shutdown(
    url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "end_children", lambda: None)  # one is the Redis of these tests
    done = threading.Event()
    heard: list[Any] = []

    def consume(message: BackgroundMessage) -> None:
        heard.append((message.content, threading.current_thread().name))
        done.set()

    async def main() -> None:
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        sent: asyncio.Queue[Any] = asyncio.Queue()
        served = InProcess(Application(background={"thumbs": consume}), url, "shop", 1, READINESS)
        running = asyncio.ensure_future(ASGIEdge(served)({"type": "lifespan"}, incoming.get, sent.put))
        incoming.put_nowait({"type": "lifespan.startup"})
        assert (await asyncio.wait_for(sent.get(), 60))["type"] == "lifespan.startup.complete"
        job = Job("job.1", 1, "thumbs", encode_state({"id": 5}))
        await asyncio.to_thread(Sender(url, "shop").send, job)
        assert await asyncio.to_thread(done.wait, 15)
        incoming.put_nowait({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(sent.get(), 60))["type"] == "lifespan.shutdown.complete"
        await running

    asyncio.run(main())
    client.flushall()
    assert heard == [({"id": 5}, "background")]
    assert "background" not in {each.name for each in threading.enumerate()}


def test_a_server_without_its_redis_fails_at_startup() -> None:
    async def main() -> Any:
        served = InProcess(Application(http=print), "unix:///nowhere", "shop", 1, READINESS)
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        await ASGIEdge(served)({"type": "lifespan"}, receive, send)
        return sent

    (failed,) = asyncio.run(main())
    assert failed["type"] == "lifespan.startup.failed"
    assert "Redis" in failed["message"]


def environment(run_dir: Path, target: str) -> dict[str, str]:
    made = {"RUN_DIR": str(run_dir), "TARGET": target, "THREADS": "3", "NAME": "shop", "ROOT_PATH": "/below/"}
    made["FORWARDED_ALLOW_IPS"] = "192.0.2.1"
    return {f"ASGICTL_{name}": value for name, value in made.items()}


@pytest.fixture
def _process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a process of its own would change."""
    for name in ("raise_file_limit", "set_leases", "enter"):
        monkeypatch.setattr(inprocess, name, lambda *_: None)


@pytest.mark.usefixtures("_process")
def test_a_process_makes_its_application_of_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    made = environment(tmp_path, "asgictl.demo:app")
    made["ASGICTL_MAX_BODY_BYTES"] = "5"
    monkeypatch.setattr(os, "environ", os.environ | made)
    edge, backend = create_application(), create_backend()
    assert isinstance(edge.backend, InProcess)
    assert edge.limits == edge.backend.limits == backend.limits
    assert (backend.limits.body_bytes, backend.config.name) == (5, "shop")
    assert [edge.trusted.trusts((host, 1)) for host in ("192.0.2.1", "192.0.2.2")] == [True, False]
    assert root_path_of(made) == "/below"
    assert silent_seconds_of({"ASGICTL_SILENT_SECONDS": "2.5"}) == 2.5


@pytest.mark.usefixtures("_process")
def test_a_process_whose_target_is_not_there_ends_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "environ", os.environ | environment(tmp_path, "nowhere:app"))
    with pytest.raises(SystemExit) as ended:
        create_application()
    assert ended.value.code == 3
