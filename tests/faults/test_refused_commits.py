"""A8: Redis refuses what a commit does. Its event ends: it runs again, or is answered, closed or a dead letter."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import Machine, until
from tests.faults.loaded import Loaded, loaded

PAUSE_SECONDS = 0.3  # that a handler takes, so that some run whenever it begins
SHORT_SECONDS = 2.0
LONG_SECONDS = 100.0  # longer than any deadline that an event has
AGAIN_SECONDS = 60.0  # in which all that was open has ended, once Redis is itself again
COUNTED_SECONDS = 30.0
ANSWERS = {200, 500, 503, 504}
REDIS = "asgictl/default/redis"


def client_of(machine: Machine) -> "redis.Redis":
    return redis.Redis.from_url(f"unix://{machine.runtime}/{REDIS}.sock")


class Permissions:
    """NOPERM."""

    def __init__(self, *commands: str) -> None:
        self._commands = commands

    def begin(self, client: "redis.Redis", _machine: Machine) -> None:
        client.execute_command("ACL", "SETUSER", "default", *(f"-{each}" for each in self._commands))

    def end(self, client: "redis.Redis", _machine: Machine) -> None:
        client.execute_command("ACL", "SETUSER", "default", *(f"+{each}" for each in self._commands))


class Setting:
    """What a setting refuses: NOREPLICAS, OOM."""

    def __init__(self, name: str, value: int) -> None:
        self._name, self._value = name, value

    def begin(self, client: "redis.Redis", _machine: Machine) -> None:
        client.config_set(self._name, self._value)

    def end(self, client: "redis.Redis", _machine: Machine) -> None:
        client.config_set(self._name, 0)


class Snapshots:
    """MISCONF: snapshots fail, for their file is a directory."""

    def begin(self, client: "redis.Redis", machine: Machine) -> None:
        (machine.runtime / REDIS / "dump.rdb").mkdir()
        client.config_set("save", "3600 1")
        self._save(client, "err")

    def end(self, client: "redis.Redis", machine: Machine) -> None:
        (machine.runtime / REDIS / "dump.rdb").rmdir()
        self._save(client, "ok")
        client.config_set("save", "")

    def _save(self, client: "redis.Redis", wanted: str) -> None:
        def saved() -> bool:
            info: Any = client.info("persistence")
            if info["rdb_last_bgsave_status"] == wanted:
                return True
            with suppress(redis.ResponseError):  # one runs
                client.bgsave()
            return False

        until(saved, f"a snapshot that is {wanted}")


NOW: dict[str, Any] = {  # Redis will never say otherwise
    "noperm": Permissions("xack", "xadd"),
    "noperm-xack": Permissions("xack"),
    "noperm-xadd": Permissions("xadd"),
}
LATER: dict[str, Any] = {  # so says one that is not itself for a while
    "noreplicas": Setting("min-replicas-to-write", 1),
    "oom": Setting("maxmemory", 1),
    "misconf": Snapshots(),
}
REFUSALS = NOW | LATER


@contextmanager
def refused(site: Loaded, name: str) -> Iterator[None]:
    with closing(client_of(site.machine)) as client:
        REFUSALS[name].begin(client, site.machine)
        try:
            yield
        finally:
            REFUSALS[name].end(client, site.machine)


@contextmanager
def slow(
    machine: Machine, notes: Path, target: str, mode: str = "split", ran: tuple[str, ...] = ()
) -> Iterator[Loaded]:
    """Start handlers of 0.3 s, under load of each kind; judge what is common once all is over.

    ran: what must have run of requests that were answered.
    """
    options = ("--mode", mode, "--workers", "2", "--threads", "4")
    with loaded(machine, notes, target, *options, pause_seconds=PAUSE_SECONDS, again=True) as site:
        yield site
        site.flows(AGAIN_SECONDS, "it flows again")
        until(lambda: not site.requests.wrong(notes, ran or kinds(target)), "what was answered has run", AGAIN_SECONDS)
    until(lambda: pending(machine) == 0, "no entry stays pending", AGAIN_SECONDS)
    assert site.wrong == []
    assert set(site.load.closed) <= {1011}
    assert site.requests.statuses <= ANSWERS


def kinds(target: str) -> tuple[str, ...]:
    return ("posted", "job") if target == "app" else ("posted",)


def pending(machine: Machine) -> int:
    """Count entries that workers hold, and those that wait."""
    with closing(client_of(machine)) as client:
        streams: Any = client.smembers("asgictl:{default}:channels")
        pipeline: Any = client.pipeline()
        for stream in streams:
            pipeline.xpending(stream, "workers")
            pipeline.xlen(stream)
        return sum(each["pending"] if isinstance(each, dict) else each for each in pipeline.execute())


def counted(machine: Machine) -> int:
    """Return how many things `status` counts as refused or given up."""
    return sum(machine.status()["shed"].values())


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


TARGETS = ["app", pytest.param("mixed", marks=pytest.mark.soak)]


@pytest.mark.parametrize("name", list(REFUSALS))
@pytest.mark.parametrize("target", TARGETS)
def test_commits_that_are_refused_for_a_while(machine: Machine, notes: Path, target: str, name: str) -> None:
    """A8: everything that was open ends, and what comes after is served."""
    with slow(machine, notes, target) as site, refused(site, name):
        time.sleep(SHORT_SECONDS)


LOSING = ["noperm", "noperm-xadd"]  # what a view sends leaves after its response; without room it waits


@pytest.mark.soak
@pytest.mark.parametrize("name", list(REFUSALS))
def test_commits_of_jobs_in_process_that_are_refused_for_a_while(machine: Machine, notes: Path, name: str) -> None:
    """A8: no socket and no request needs Redis there, but for what it sends: it runs, or `status` counts it."""
    ran = ("posted",) if name in LOSING else ("posted", "job")
    with slow(machine, notes, "app", "inprocess", ran) as site:
        before = counted(machine)
        with refused(site, name):
            time.sleep(SHORT_SECONDS)
        until(lambda: name not in LOSING or counted(machine) > before, "status counts it", COUNTED_SECONDS)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(REFUSALS))
@pytest.mark.parametrize("target", ["app", "mixed"])
def test_commits_that_are_refused_for_good(machine: Machine, notes: Path, target: str, name: str) -> None:
    """A8: requests end within their deadlines, sockets too, but where Redis says "not now": those wait, as for one that
    is away.
    """
    with slow(machine, notes, target) as site:
        before = counted(machine)
        with refused(site, name):
            began = time.monotonic()
            until(lambda: min(site.requests.ended) > began + PAUSE_SECONDS, "requests end", LONG_SECONDS)
            if name in NOW:
                left = LONG_SECONDS + began - time.monotonic()
                until(lambda: min(site.load.ended()) > began + PAUSE_SECONDS, "sockets' turns end", left)
        until(lambda: counted(machine) > before, "status counts it", COUNTED_SECONDS)
