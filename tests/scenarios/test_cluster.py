"""An instance on a node of a cluster, whose slot migrates to another node and back under load."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from time import sleep

import pytest
from websockets.sync.client import connect

from asgictl.layers.redis.keys import Keys
from tests.cluster import DEBIAN, Cluster, three_nodes
from tests.conftest import Machine, until
from tests.scenarios.test_demo import SECONDS, get

APPLICATION = """
import time
from asgictl import Application, Channel, Group, path

def note(file, line):
    with open(file, "a") as notes:
        notes.write(f"{line}\\n")

def site(environ, start_response):
    number = environ["PATH_INFO"].strip("/")
    Channel("keep").send({"n": number})
    Channel("keep").send({"n": f"{number}-later"}, delay_seconds=0.2)
    start_response("200 OK", [("Content-Length", "0")])
    return []

def keep(message):
    time.sleep(0.3 if message.content["n"].startswith("slow") else 0)
    note("kept", f"{message.content['n']} {message.id}")

def join(message):
    message.accept()
    message.join("all")

def say(message):
    Channel("keep").send({"n": f"said-{message.text}"})
    Group("all").send(text=f"to all: {message.text}")
    message.reply(text=message.text)

app = Application(http=site, websocket=[path("/ws", connect=join, receive=say)], background={"keep": keep})
"""
KEYS = Keys("default")
JOBS = KEYS.channel("background.keep")
THREADS = 4
MOVED_FIRST = [JOBS, KEYS.delayed("background.keep"), KEYS.broadcast, KEYS.alive]
PAUSE_SECONDS = 0.2  # in which the instance meets each state of a migration


class Posts:
    """Sends numbered requests, each of which has a job done now and one later; those answered 200 are promised."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(THREADS)]
        self.promised: list[str] = []
        self.statuses: Counter[int] = Counter()
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stopping.is_set():
            number = next(self._numbers)
            with suppress(OSError):
                status, *_ = get(f"{self._url}/{number}", b"x")
                self.statuses[status] += 1
                if status == 200:
                    self.promised += [f"{number}", f"{number}-later"]

    def go_on(self) -> None:
        """Wait until they are answered again."""
        before = self.statuses[200]
        until(lambda: self.statuses[200] > before + 20, "requests are answered")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


class Says(threading.Thread):
    """Says numbers on a socket and hears each, in turn, before the next; and each from its group."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._stopping = threading.Event()
        self.heard: list[str] = []
        self.count = 0

    def run(self) -> None:
        with connect(f"{self._url}/ws") as ws:
            while not self._stopping.is_set():
                ws.send(f"{self.count}")
                self.heard += [str(ws.recv(SECONDS)) for _ in range(2)]
                self.count += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        numbers = range(self.count)
        assert [each for each in self.heard if each.isdigit()] == [f"{n}" for n in numbers]
        assert [each for each in self.heard if not each.isdigit()] == [f"to all: {n}" for n in numbers]


def migrate(cluster: Cluster, *, back: bool, first: list[str]) -> None:
    """Migrate the slot: some keys, then all."""
    cluster.begin(back=back)
    sleep(PAUSE_SECONDS)
    for key in first:
        cluster.move(key, back=back)
        sleep(PAUSE_SECONDS)
    cluster.finish(back=back)
    sleep(PAUSE_SECONDS)


@pytest.fixture
def cluster(machine: Machine, tmp_path: Path) -> Iterator[Cluster]:
    """One that an instance runs on."""
    machine.directory = tmp_path
    (tmp_path / "jobs.py").write_text(APPLICATION)
    with three_nodes(DEBIAN, KEYS.alive) as made:
        machine.start("jobs:app", "--redis", made.url, "--workers", "2")
        yield made
        machine.stop()


def kept(machine: Machine) -> dict[str, set[str]]:
    """Return the jobs that have run, by what they are about: each was sent once, however often it was started."""
    assert machine.directory
    found: dict[str, set[str]] = {}
    for line in (machine.directory / "kept").read_text().splitlines():
        about, _, id = line.partition(" ")
        found.setdefault(about, set()).add(id)
    return found


def test_nothing_that_was_promised_is_lost_while_the_slot_migrates_to_another_node_and_back(
    machine: Machine, cluster: Cluster
) -> None:
    posts, says = Posts(machine.url), Says(machine.ws)
    says.start()
    for number in range(len(MOVED_FIRST)):
        posts.go_on()
        migrate(cluster, back=False, first=MOVED_FIRST[number:])
        migrate(cluster, back=True, first=[KEYS.channel("http.request")])
    posts.go_on()
    posts.stop()
    says.stop()
    promised = {*posts.promised, *(f"said-{n}" for n in range(says.count))}
    until(lambda: promised <= kept(machine).keys(), "every job that was promised has run")
    assert [about for about, ids in kept(machine).items() if len(ids) > 1] == [], "none was sent twice"


def test_what_a_killed_worker_held_runs_elsewhere_once_the_migration_is_over(
    machine: Machine, cluster: Cluster
) -> None:
    promised = {f"slow{number}" for number in range(16)}
    for number in promised:
        assert get(f"{machine.url}/{number}", b"x")[0] == 200
    ready = machine.status()["ready"]
    killed = next(report["pid"] for report in ready if report["role"] == "worker")
    cluster.begin()
    cluster.move(KEYS.alive)
    os.kill(killed, signal.SIGKILL)
    sleep(PAUSE_SECONDS)
    cluster.finish()
    migrate(cluster, back=True, first=[])
    until(lambda: promised <= kept(machine).keys(), "every job that was promised has run")
    assert get(f"{machine.url}/after", b"x")[0] == 200
