"""Probes of a role that runs alone."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from asgictl.config import Bind
from asgictl.control.probes import address, serve_probes
from asgictl.errors import AddressError
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.telemetry.controller_client import Readiness
from asgictl.telemetry.metrics import Figures
from tests.conftest import free_port

LEASE_SECONDS = 5.0
REDIS = "redis://127.0.0.1:1"  # where none is: no probe but /metrics asks it


@dataclass
class Role:
    """A worker, its figures and its port."""

    readiness: Readiness
    figures: Figures
    port: int

    def get(self, path: str, host: str = "localhost") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def role() -> Role:
    made = Role(Readiness(None, "worker", "worker"), Figures(), free_port())
    serve_probes(address(str(made.port)), made.readiness, LEASE_SECONDS, REDIS, "shop")
    return made


def test_it_lives_before_it_is_ready(role: Role) -> None:
    assert role.get("/livez") == (200, "ok\n")
    assert role.get("/readyz") == (503, "it is starting\n")
    role.readiness.ready(lambda: role.figures)
    assert role.get("/readyz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (Figures(draining=1), "it is shutting down\n"),
        (Figures(redis_silent_seconds=LEASE_SECONDS + 1), "Redis has been silent for longer than the lease\n"),
        (Figures(full=1), "it has reached its open file limit\n"),
        (Figures(redis_silent_seconds=LEASE_SECONDS - 1, running=9), ""),
    ],
)
def test_what_is_against_sending_anything_here_is_said(role: Role, figures: Figures, reason: str) -> None:
    role.readiness.ready(lambda: figures)
    assert role.get("/readyz") == (503 if reason else 200, reason or "ok\n")
    assert role.get("/livez")[0] == 200


def test_metrics_are_those_of_this_process(role: Role) -> None:
    role.readiness.ready(lambda: Figures(events=7), threads=3)
    status, text = role.get("/metrics")
    assert status == 200
    assert 'asgictl_events_total{process="worker",role="worker"} 7.0' in text
    assert 'asgictl_threads{process="worker",role="worker"} 3.0' in text
    assert "resident_memory_bytes{" in text


def test_any_process_tells_how_full_the_channels_are(client: Any, url: str) -> None:
    client.flushall()
    keys = Keys("shop")
    client.xgroup_create(keys.channel("http.request"), WORKERS, "0", mkstream=True)
    client.sadd(keys.channels, keys.channel("http.request"))
    client.xadd(keys.channel("http.request"), {"1": "x"})
    role = Role(Readiness(None, "worker", "worker"), Figures(), free_port())
    serve_probes(address(str(role.port)), role.readiness, LEASE_SECONDS, url, "shop")
    assert 'asgictl_channel_depth{channel="http.request"} 1.0' in role.get("/metrics")[1]


def test_names_are_checked_where_only_this_machine_is_served(role: Role) -> None:
    assert role.get("/livez", host="elsewhere.example")[0] == 403
    everywhere = Role(role.readiness, role.figures, free_port())
    serve_probes(address(f"0.0.0.0:{everywhere.port}"), role.readiness, LEASE_SECONDS, REDIS, "shop")
    assert everywhere.get("/livez", host="10.0.0.7:9000")[0] == 200


@pytest.mark.parametrize(
    ("text", "bind"), [("9000", "127.0.0.1:9000"), ("0.0.0.0:9000", "0.0.0.0:9000"), ("[::1]:9000", "[::1]:9000")]
)
def test_without_a_host_nothing_listens_beyond_this_machine(text: str, bind: str) -> None:
    assert address(text) == Bind(bind, "--probe-port")
    assert address(text).is_local is ("0.0.0.0" not in bind)


@pytest.mark.parametrize("text", ["x", "99999", "0"])
def test_what_is_no_port_is_refused_by_its_own_name(text: str) -> None:
    with pytest.raises(AddressError, match=rf"--probe-port .*{text}"):
        address(text)


def test_a_port_that_is_taken_is_refused(role: Role) -> None:
    with pytest.raises(AddressError, match="choose another --probe-port"):
        serve_probes(address(str(role.port)), role.readiness, LEASE_SECONDS, REDIS, "shop")
    assert os.getpid() == role.readiness.report["pid"]
