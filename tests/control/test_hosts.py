"""An instance whose processes run on many hosts, as their records tell of it."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from asgictl.control.hosts import status_from, status_of
from asgictl.control.status_page import page
from asgictl.control.status_schema import Status
from asgictl.errors import NotRunning, RedisError
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.process_records import Records, record_command
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.process_record import ProcessRecord
from asgictl.wire.manifest import Manifest, encode_manifest

NOW = 1_800_000_000.0


@dataclass
class Hosts:
    """Records of processes. add(): one more, which is ready; figures: of its last ten seconds."""

    records: list[tuple[float, bytes]] = field(default_factory=list)

    def add(
        self, host: str, role: str, *, heard: float = 0.5, ahead: float = 0.0, state: str = "ready", **report: Any
    ) -> Figures:
        told = {"role": role, "process": role, "pid": 7, "state": state, "release": "v1", **report}
        told |= {"threads": 2} if role == "worker" else {}
        first, last = Figures(), Figures(draining=report.pop("draining", 0))
        for _ in range(20):
            last.answer(200, 0.1, 0.05)
        record = ProcessRecord(host, state, told, NOW - heard + ahead, 60.0, 1 << 20, 10.0, first, last)
        self.records.append((heard, msgspec.msgpack.encode(record)))
        return last

    def status(self, manifest: Manifest | None = None) -> Status:
        encoded = encode_manifest(manifest) if manifest else None
        return status_from("shop", Records(NOW, self.records, encoded), {})


@pytest.fixture
def hosts() -> Hosts:
    """An interface and two workers, each on a host of its own."""
    made = Hosts()
    made.add("web1", "interface", release="")
    made.add("app1", "worker", channels=["http.request"])
    made.add("app2", "worker", channels=["http.request"])
    return made


def test_every_process_is_there_with_its_host(hosts: Hosts) -> None:
    found = hosts.status()
    named = [(each["host"], each["role"], each["state"], each["release"]) for each in found["processes"]]
    workers = [(host, "worker", "RUNNING", "v1") for host in ("app1", "app2")]
    assert named == [*workers, ("web1", "interface", "RUNNING", "")]
    assert [round(each["heard_seconds_ago"], 1) for each in found["processes"]] == [0.5] * 3
    assert found["warnings"] == []
    assert found["database_connections_at_most"] == 4
    msgspec.json.decode(json.dumps(found), type=Status)  # the schema that an instance has


def test_rates_and_quantiles_are_those_of_all(hosts: Hosts) -> None:
    requests = hosts.status()["requests"]
    assert requests is not None
    assert (requests["total"], round(requests["per_second"], 1)) == (60, 6.0)
    hosts.add("app3", "worker", heard=20.0)
    assert hosts.status()["requests"] == requests, "of who is silent nothing is recent"
    assert requests["p50_seconds"] == pytest.approx(0.1, rel=0.3)


def test_it_is_shown_as_an_instance_is(hosts: Hosts) -> None:
    lines = [line.text for line in page(hosts.status(), 200)]
    assert lines[0].endswith("· shop · split")
    heading = next(line.split() for line in lines if line.startswith("host"))
    assert [heading[0], heading[1], heading[-2], heading[-1]] == ["host", "process", "heard", "release"]
    assert next(line.split()[:4] for line in lines if line.startswith("app2")) == ["app2", "worker", "ready", "7"]


def test_mixed_releases_are_named_with_their_hosts(hosts: Hosts) -> None:
    hosts.add("app3", "worker", release="v2")
    hosts.add("app4", "worker", release="v0", draining=1)
    (line,) = hosts.status()["warnings"]
    assert line == "mixed releases: v1 (app1, app2), v2 (app3); deploy one of them everywhere"


def test_a_channel_that_nobody_serves_is_named(hosts: Hosts) -> None:
    manifest = Manifest(1, "v1", True, [], pools={"/slow": ".slow"}, background=["thumbs"])
    hosts.add("app3", "worker", channels=["http.request.slow"], heard=30.0)
    hosts.add("app4", "worker", channels=["background.thumbs"], state="starting")
    found = [line for line in hosts.status(manifest)["warnings"] if "serves this channel" in line]
    assert [line.partition(":")[0] for line in found] == ["background.thumbs", "http.request.slow"]


@pytest.mark.parametrize(
    "lost", [{"heard": 20.0}, {"state": "starting"}, {"draining": 1}], ids=["silent", "starting", "draining"]
)
def test_a_role_that_nobody_serves_is_named(lost: dict[str, Any]) -> None:
    hosts = Hosts()
    hosts.add("app1", "worker")
    hosts.add("web1", "interface", **lost)
    lines = hosts.status()["warnings"]
    assert "0 of 1 interfaces are ready; start one with this --redis and --name" in lines
    silent = "interface on web1 has not reported for 20 s; it or its host is gone, or cut off from Redis"
    assert (silent in lines) == ("heard" in lost)


@pytest.mark.parametrize(
    ("ahead", "line"),
    [
        ((0.9, -0.9), []),
        ((0.2, 2.5), ["the clocks of Redis and app2 differ by 2.5 s; have NTP set them"]),
        ((1.5, -1.5), ["the clocks of app2 and app1 differ by 3.0 s; have NTP set them"]),
    ],
)
def test_clocks_that_differ_are_named(ahead: tuple[float, float], line: list[str]) -> None:
    hosts = Hosts()
    hosts.add("web1", "interface", heard=2.0, ahead=0.1)
    for number, seconds in enumerate(ahead, start=1):
        hosts.add(f"app{number}", "worker", ahead=seconds)
    assert hosts.status()["warnings"] == line


def test_servers_of_the_other_mode_are_an_instance_too() -> None:
    hosts = Hosts()
    hosts.add("web1", "server")
    hosts.add("web2", "server")
    found = hosts.status()
    assert (found["mode"], found["workers"], found["warnings"]) == ("inprocess", 2, [])


@pytest.mark.parametrize("junk", [b"", b"\xff", msgspec.msgpack.encode({"host": "h"})])
def test_a_record_that_cannot_be_read_spoils_itself_alone(hosts: Hosts, junk: bytes) -> None:
    hosts.records.insert(0, (0.0, junk))
    found = hosts.status()
    assert len(found["processes"]) == 3
    assert found["warnings"] == [
        "1 process records cannot be decoded: those processes may run another version of asgictl"
    ]
    hosts.records = hosts.records[:1]
    assert hosts.status()["processes"] == []


def test_an_instance_without_processes_does_not_run(client: Any, url: str, hosts: Hosts) -> None:
    client.flushall()
    with pytest.raises(NotRunning, match="no process of instance 'shop'"):
        status_of(url, "shop")
    client.execute_command(*record_command(Keys("shop"), "a", hosts.records[0][1]))
    assert [each["host"] for each in status_of(url, "shop")["processes"]] == ["web1"]


def test_a_redis_that_is_away_is_one_clear_line() -> None:
    with pytest.raises(RedisError, match="a request to Redis failed"):
        status_of(f"unix:///nowhere/{os.getpid()}", "shop")
