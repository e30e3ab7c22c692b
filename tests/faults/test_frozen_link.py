"""A5: Redis goes away without a word, as behind a partition, a firewall, or a host that stands still."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.proxy import Proxy
from tests.conftest import new_machine, until
from tests.faults.conftest import readiness
from tests.faults.loaded import Loaded, loaded

BACK_SECONDS = 30.0  # 6 promised, on a machine that may be busy; without it, never
STALL_SECONDS = 12.0
AGAIN_SECONDS = 60.0  # in which a Redis that was away is heard again, and what waited has run
READ = b"XREADGROUP"  # says the connection of a thread that runs sync code, and no other


@contextmanager
def behind_proxy(
    redis_url: str, notes: Path, target: str, *arguments: str, mode: str = "split", clients: int = 2
) -> Iterator[tuple[Proxy, Loaded]]:
    """Start an instance behind a proxy, under load."""
    with Proxy(redis_url) as proxy, new_machine() as machine:
        options = ("--mode", mode, "--workers", "2", "--redis", proxy.url, *arguments)
        with loaded(machine, notes, target, *options, clients=clients) as site:
            yield proxy, site
    assert site.load.wrong == []


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


SOAK = pytest.mark.soak
ROLES = [  # supervisord's group, what its connections have said, and what they have not
    pytest.param("", b"", b"", id="all"),
    pytest.param("interface", b"", b"", id="interface", marks=SOAK),
    pytest.param("worker", READ, b"", id="sync-loops", marks=SOAK),
    pytest.param("worker", b"", READ, id="watchdog-and-event-loop", marks=SOAK),
    pytest.param("worker", b"", b"", id="worker", marks=SOAK),
    pytest.param("controller", b"", b"", id="controller", marks=SOAK),
]


def check_answers(site: Loaded, group: str) -> None:
    """A POST that an interface sent into a frozen connection has perhaps run, and is a 502; all else is a 200."""
    unknown = {("POST", 502)} if group in {"", "interface"} else set()
    assert set(site.requests.answers) <= {("GET", 200), ("POST", 200)} | unknown


@pytest.mark.parametrize(("group", "having", "without"), ROLES)
def test_connections_that_forward_nothing_are_replaced(
    url_of_valkey: str, notes: Path, group: str, having: bytes, without: bytes
) -> None:
    """A5, consumers, sync and async: sockets that count lose, repeat and reorder nothing, requests are answered."""
    with behind_proxy(url_of_valkey, notes, "app") as (proxy, site):
        assert proxy.freeze(group, having, without)
        site.flows(BACK_SECONDS, "it flows again")
    check_answers(site, group)
    assert site.requests.wrong(notes) == []


@pytest.mark.parametrize(("group", "having", "without"), ROLES)
def test_connections_of_asgi_that_forward_nothing_are_replaced(
    url_of_valkey: str, notes: Path, group: str, having: bytes, without: bytes
) -> None:
    """A5, an ASGI application's sockets and requests."""
    with behind_proxy(url_of_valkey, notes, "streams") as (proxy, site):
        assert proxy.freeze(group, having, without)
        site.flows(BACK_SECONDS, "it flows again")
    check_answers(site, group)
    assert site.requests.wrong(notes) == []


def test_connections_of_servers_in_process_that_forward_nothing_are_replaced(url_of_valkey: str, notes: Path) -> None:
    """A5, groups and jobs: what was answered has its job run."""
    with behind_proxy(url_of_valkey, notes, "app", mode="inprocess") as (proxy, site):
        assert proxy.freeze()
        site.flows(BACK_SECONDS, "it flows still")
        until(lambda: not site.requests.wrong(notes, ("posted", "job")), "each job runs", BACK_SECONDS)
    assert site.requests.statuses == {200}


@pytest.mark.parametrize("target", ["app", pytest.param("streams", marks=SOAK)])
def test_a_redis_that_stalls_and_goes_on_costs_nothing(url_of_valkey: str, notes: Path, target: str) -> None:
    """A5: everything waits; nothing is lost, no socket closes, and a POST is not answered 502."""
    with behind_proxy(url_of_valkey, notes, target) as (proxy, site):
        proxy.stall()
        time.sleep(STALL_SECONDS)
        proxy.go()
        site.flows(BACK_SECONDS, "it flows again")
    assert site.requests.statuses == {200}
    assert site.requests.wrong(notes) == []


def test_an_instance_is_not_ready_once_redis_was_silent_for_longer_than_its_leases(
    url_of_valkey: str, notes: Path
) -> None:
    """A5: probes and `status` say so; and that it is ready again."""
    with behind_proxy(url_of_valkey, notes, "app", "--silent-seconds", "3", clients=0) as (proxy, site):
        assert readiness(site.machine)[0] == 200
        proxy.stall()
        until(lambda: readiness(site.machine)[0] == 503, "it is not ready")
        warnings = site.machine.status()["warnings"]
        proxy.go()
        until(lambda: readiness(site.machine)[0] == 200, "it is ready again", AGAIN_SECONDS)
        site.flows(AGAIN_SECONDS, "it flows again")
    assert "Redis" in "".join(warnings)
