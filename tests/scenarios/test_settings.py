"""An instance from a settings file: TLS, options passed on, logs for programs."""

import asyncio
import json
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websockets

from tests.conftest import MODES, Machine, until

SETTINGS = """
workers = 1
only-channels = ["http.*", "websocket.*"]
log-format = "json"
uvicorn-option = [
    "ssl_certfile=my cert.pem", "ssl_keyfile=key.pem", "ssl_keyfile_password=hunter2", "headers=X-From: file"
]
gunicorn-option = ["timeout=21"]
"""
APP = """
import logging
from asgictl import Application, path

def site(environ, start_response):
    logging.getLogger("shop").warning("seen at redis://:hunter2@h")
    start_response("200 OK", [])
    return [environ["wsgi.url_scheme"].encode()]

def echo(message):
    message.reply(text=message.text)

app = Application(http=site, websocket=[path("/echo", receive=echo)])
"""


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    certificate = "openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", "key.pem", "-out", "my cert.pem", "-passout", "pass:hunter2"]
    subprocess.run([*certificate.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "asgictl.toml").write_text(SETTINGS)
    (tmp_path / "shop.py").write_text(APP)
    return machine


@pytest.mark.parametrize("mode", MODES)
def test_tls_from_a_file_serves_https_and_wss(project: Machine, mode: str) -> None:
    assert project.directory
    assert f"https://127.0.0.1:{project.port}" in project.start("shop:app", "--mode", mode)
    trust = ssl.create_default_context(cafile=project.directory / "my cert.pem")
    with urllib.request.urlopen(f"https://127.0.0.1:{project.port}/", context=trust, timeout=60) as response:
        assert (response.read(), response.headers["X-From"]) == (b"https", "file")

    async def echo() -> str | bytes:
        async with websockets.connect(f"wss://127.0.0.1:{project.port}/echo", ssl=trust) as socket:
            await socket.send("hello")
            return await asyncio.wait_for(socket.recv(), 60)

    assert asyncio.run(echo()) == "hello"
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(project.url, timeout=60)
    status = project.run("status", "--json").stdout
    assert "hunter2" not in status
    limits = {report["file_limit"] for report in json.loads(status)["ready"]}
    assert limits == {hard_limit()}


def hard_limit() -> int:
    """Return how many files a process of this machine may open, its soft limit raised."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize("mode", MODES)
def test_every_line_of_a_foreground_start_that_a_process_logged_is_json(project: Machine, mode: str) -> None:
    process = project.popen("start", "shop:app", "--mode", mode, "--bind", f"127.0.0.1:{project.port}")
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break

    def logged() -> bool:
        context = ssl._create_unverified_context()  # noqa: S323
        urllib.request.urlopen(f"https://127.0.0.1:{project.port}/", context=context, timeout=60).close()
        log = project.log("worker-00" if mode == "split" else "server-00")
        return "seen at" in log

    until(logged, "the application's log line")
    found: dict[str, str] = {}
    for line in process.stdout:
        found = json.loads(line)
        if found.get("logger") == "shop":
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert found["message"] == "seen at redis://***@h"
    assert found["level"] == "WARNING"


def test_a_mistake_in_the_file_starts_nothing(project: Machine) -> None:
    assert project.directory
    (project.directory / "asgictl.toml").write_text("workerz = 2")
    done = project.run("start", "shop:app")
    (project.directory / "asgictl.toml").unlink()
    assert done.stderr == "Error: asgictl.toml: there is no workerz; did you mean workers?\n"
    assert done.returncode == 2
