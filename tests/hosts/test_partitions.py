"""What a cut link, or a host that is gone for good, costs those behind it, and nobody else."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from websockets.sync.client import connect

from asgictl.errors import FENCED_STATUS
from benchmarks.numbered import Load
from tests.conftest import until
from tests.hosts.conftest import Site, gone, serves, url_of
from tests.hosts.network import Host

SOCKETS = 20  # of each interface
LEASE_SECONDS = 15  # of an interface
PATIENCE_SECONDS = 60  # that recovery has beside other tests; alone it takes 6
CUTS = pytest.mark.parametrize(
    ("way", "seconds"),
    [
        pytest.param(way, seconds, marks=[pytest.mark.soak] if way != "both" or seconds > LEASE_SECONDS else [])
        for seconds in (3, 20)
        for way in ("both", "sends", "hears", "unplugged")
    ],
)


@contextmanager
def loads(site: Site, listeners: int = 2) -> Iterator[list[Load]]:
    """Clients of both interfaces. listeners: of the first; the second has two."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(Load(url_of(interface), sockets=SOCKETS, prefix=prefix, listeners=count))
            for interface, prefix, count in zip(site.interfaces, ("first", "second"), (listeners, 2), strict=True)
        ]
        flows(*made)
        yield made


def flows(*each: Load) -> None:
    """Wait until more messages of each have made their way."""
    goals = [load.messages + 200 for load in each]
    ended = lambda: all(load.messages >= goal or load.wrong for load, goal in zip(each, goals, strict=True))  # noqa: E731
    until(ended, "messages flow")


def cut(site: Site, host: Host, way: str, seconds: float) -> None:
    """Cut a host off from Redis, or from everybody, for so long."""
    network = site.network
    pairs = [(host, site.redis)] if way != "hears" else []
    pairs += [(site.redis, host)] if way != "sends" else []
    if way == "unplugged":
        network.unplug(host)
    else:
        for pair in pairs:
            network.lose(*pair)
    time.sleep(seconds)
    if way == "unplugged":
        network.plug(host)
    else:
        for pair in pairs:
            network.mend(*pair)


@CUTS
def test_a_worker_that_is_cut_off_costs_nothing(site: Site, way: str, seconds: float) -> None:
    with loads(site) as (first, second):
        cut(site, site.workers[0], way, seconds)
        began = time.monotonic()
        until(lambda: site.living("worker") == 2, "it is back", PATIENCE_SECONDS)
        print(f"back {time.monotonic() - began:.1f} s after the cut; exits {site.workers[0].exits}")
        flows(first, second)
    assert first.wrong + second.wrong == []
    assert max(first.longest_stall_seconds, second.longest_stall_seconds) < PATIENCE_SECONDS


@CUTS
def test_an_interface_that_is_cut_off(site: Site, way: str, seconds: float) -> None:
    """Within its lease nothing closes. Past it others have run its disconnects, so it closes its sockets and ends."""
    first_interface = site.interfaces[0]
    with loads(site, listeners=2 if seconds < LEASE_SECONDS else 0) as (first, second):
        cut(site, first_interface, way, seconds)
        began = time.monotonic()
        until(lambda: serves(first_interface) and site.living("interface") == 4, "it is back", PATIENCE_SECONDS)
        print(f"back {time.monotonic() - began:.1f} s after the cut; exits {first_interface.exits}")
        flows(second)
    assert second.wrong == []
    if seconds < LEASE_SECONDS:
        assert first.wrong == []
    else:
        assert first_interface.exits == [FENCED_STATUS]
        assert first.closed == {1012: SOCKETS}
        assert all("was closed" in line or "request failed" in line for line in first.wrong), first.wrong


def test_a_workers_host_that_is_gone_for_good_costs_nothing(site: Site) -> None:
    with loads(site) as (first, second):
        gone(site.network, site.workers[0])
        until(lambda: site.living("worker") == 1, "others have its work", PATIENCE_SECONDS)
        flows(first, second)
    assert first.wrong + second.wrong == []


def test_the_disconnects_of_an_interfaces_host_that_is_gone_run_once(site: Site) -> None:
    first, second = (url_of(interface).replace("http", "ws") for interface in site.interfaces)
    with Load(url_of(site.interfaces[1]), sockets=SOCKETS) as load, ExitStack() as stack:
        listener = stack.enter_context(connect(f"{second}/named?listen"))
        for number in range(SOCKETS):
            stack.enter_context(connect(f"{first}/named?s{number}", close_timeout=0.1))
        gone(site.network, site.interfaces[0])
        heard = [str(listener.recv(60)) for _ in range(SOCKETS)]
        assert sorted(heard) == sorted(f"s{number} left with 1006" for number in range(SOCKETS))
        with pytest.raises(TimeoutError):
            listener.recv(3)  # nobody left twice
        until(lambda: site.living("interface") == 2, "only the other one's are left", PATIENCE_SECONDS)
        flows(load)
    assert load.wrong == []
