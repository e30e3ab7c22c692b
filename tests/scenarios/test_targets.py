"""One TARGET means the same in split mode, in-process, and to a worker that runs alone."""

import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS

FACTORY = """
import os


def create_app(name="plain"):
    def app(scope, receive, send):
        return serve(send, f"{name} {os.environ['FROM_FILE']} {os.path.basename(os.getcwd())}")

    return app


async def serve(send, text):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""
OPTIONS = ("--app-dir", "src", "--env-file", ".env")


@pytest.fixture
def site(machine: Machine, tmp_path: Path) -> Machine:
    """A project whose module is in src/, and the port that a host chose."""
    machine.directory = tmp_path / "project"
    (machine.directory / "src").mkdir(parents=True)
    (machine.directory / "src" / "site_app.py").write_text(FACTORY)
    (machine.directory / ".env").write_text("FROM_FILE=set\n")
    machine.environment |= {"PORT": str(machine.port), "WEB_CONCURRENCY": "1"}
    return machine


def get(machine: Machine) -> str:
    with urlopen(machine.url, timeout=SECONDS) as response:
        return str(response.read().decode())


@pytest.mark.parametrize("mode", MODES)
def test_a_factory_of_another_directory_serves_and_is_deployed(site: Machine, mode: str) -> None:
    done = site.run("start", 'site_app:create_app("50%")', "--mode", mode, "-d", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert get(site) == "50% set project"
    assert site.directory is not None
    (site.directory / "src" / "site_app.py").write_text(FACTORY.replace("{name}", "new {name}"))
    assert site.run("reload", "--wait").returncode == 0
    assert get(site) == "new 50% set project"


def test_a_worker_alone_serves_what_start_would(site: Machine, url_of_valkey: str) -> None:
    site.environment["ASGICTL_REDIS"] = url_of_valkey
    roles = [site.popen("interface"), site.popen("worker", "site_app:create_app", *OPTIONS)]
    try:
        until(lambda: serves(site), "the worker serves", SECONDS)
        assert get(site) == "plain set project"
    finally:
        for each in roles:
            each.terminate()
        for each in roles:
            stopped(each)


def serves(machine: Machine) -> bool:
    try:
        return bool(get(machine))
    except OSError:  # no interface yet, or a 503 without a worker
        return False


def stopped(role: "subprocess.Popen[str]") -> None:
    assert role.communicate(timeout=SECONDS) is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_mistake_says_what_was_meant(site: Machine, mode: str) -> None:
    done = site.run("start", "site_app:create_app", "--mode", mode, "-d")
    assert done.returncode == 3
    assert "give --app-dir src" in done.stderr
    assert "Traceback" not in done.stderr
