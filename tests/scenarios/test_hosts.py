"""Roles on many hosts, which share a Redis and nothing else."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Machine, free_port, new_machine, redis_server, until

HOSTS = Path(__file__).parent / "hosts"
SECONDS = 60.0
APPLICATION = """
import asgictl

def view(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = asgictl.Application(http=view, background={"thumbs": lambda message: message.content["fail"]})
"""


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Hosts:
    """Runs roles, each as on a host of its own. An operator's machine has nothing but the URL."""

    def __init__(self, machine: Machine, url: str) -> None:
        self.machine = machine
        self.url = url
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, host: str, role: str, *arguments: str) -> int:
        """Start a role; returns the port of its probes, once they answer."""
        port = free_port()
        path = os.pathsep.join([str(HOSTS), os.environ.get("PYTHONPATH", "")])
        self.machine.environment |= {"HOST": host, "PYTHONPATH": path}
        options = ("--redis", self.url, "--name", "shop", "--probe-port", str(port))
        self.processes[host] = self.machine.popen(role, *arguments, *options)
        del self.machine.environment["HOST"]
        until(lambda: get(port, "/livez")[0] == 200, f"{role} on {host} lives", SECONDS)
        return port

    def stop(self, host: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(host)
        process.send_signal(number)
        process.communicate(timeout=SECONDS)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(*arguments, "--redis", self.url, "--name", "shop")

    def status(self) -> dict[str, Any]:
        found = self.run("status", "--json")
        return json.loads(found.stdout) if found.returncode == 0 else {"processes": [], "warnings": [found.stderr]}

    def ready(self) -> set[str]:
        return {each["host"] for each in self.status()["processes"] if each["ready"]}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    (tmp_path / "app.py").write_text(APPLICATION)
    with redis_server("valkey-8") as url, new_machine() as machine:
        machine.directory = tmp_path
        made = Hosts(machine, url)
        try:
            yield made
        finally:
            for host in list(made.processes):
                made.stop(host)


def test_an_operator_sees_every_host_and_what_is_missing(hosts: Hosts) -> None:
    assert hosts.run("status").returncode == 7
    bind = f"127.0.0.1:{hosts.machine.port}"
    web1 = hosts.start("web1", "interface", "--bind", bind, "--shutdown-delay", "20")
    app1 = hosts.start("app1", "worker", "app:app", "--only-channels", "http.*")
    hosts.start("app2", "worker", "app:app", "--release", "next", "--exclude-channels", "background.*")
    until(lambda: {get(port, "/readyz") for port in (web1, app1)} == {(200, "ok\n")}, "roles are ready", SECONDS)
    until(lambda: hosts.ready() == {"web1", "app1", "app2"}, "all hosts are known", SECONDS)
    until(lambda: get(hosts.machine.port, "/") == (200, "ok"), "requests are served", SECONDS)
    warnings = "\n".join(hosts.status()["warnings"])
    assert "mixed releases: " in warnings
    assert "next (app2)" in warnings
    assert "background.thumbs: no worker serves this channel" in warnings
    assert "asgictl_requests_total" in get(web1, "/metrics")[1]

    hosts.stop("app2")
    until(lambda: hosts.ready() == {"web1", "app1"}, "who leaves in order is forgotten", SECONDS)
    hosts.stop("app1", signal.SIGKILL)
    gone = "worker on app1 has not reported for"
    until(lambda: gone in "\n".join(hosts.status()["warnings"]), "a host that is gone is missed", SECONDS)
    assert "0 of 1 workers are ready" in "\n".join(hosts.status()["warnings"])
    assert hosts.run("status", "--check").returncode == 15

    hosts.processes["web1"].send_signal(signal.SIGTERM)
    until(lambda: get(web1, "/readyz") == (503, "it is shutting down\n"), "balancers turn away", SECONDS)
    assert get(web1, "/livez")[0] == 200
    hosts.stop("web1")


def test_an_operator_sends_and_looks_after_dead_letters_from_anywhere(hosts: Hosts) -> None:
    hosts.start("app1", "worker", "app:app")
    until(lambda: hosts.ready() == {"app1"}, "the worker is ready", SECONDS)
    assert hosts.run("send", "--channel", "thumbs", "--json", '{"fail": 1}').returncode == 0
    until(lambda: hosts.status()["processes"][0].get("events") == 1, "the message is handled", SECONDS)
    assert hosts.run("send", "--channel", "other", "--json", "{}").returncode == 10
    assert hosts.run("dead-letters", "list").returncode == 0


def test_an_instance_on_a_host_is_seen_from_others(hosts: Hosts) -> None:
    hosts.machine.environment["ASGICTL_NAME"] = "shop"
    hosts.machine.start("app:app", "--workers", "1", "--redis", hosts.url)
    hosts.start("app9", "worker", "app:app")

    def named() -> set[str]:
        return {each["process"] for each in hosts.status()["processes"] if each["ready"]}

    until(lambda: named() == {"interface-00", "worker-00", "worker"}, "slots and a role alone", SECONDS)
    here = hosts.machine.status()
    assert {each["role"] for each in here["processes"]} == {"interface", "worker", "controller"}
