"""What is done to servers: to processes that stand for them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from asgictl.loadtests import happenings
from asgictl.loadtests.happenings import Happenings, NotPossible, deploy, kill
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Server
from asgictl.loadtests.usage import Usage
from tests.conftest import until

# A master with a worker, which ends 3 s after SIGHUP, when there is another; and with a child that serves nobody.
MASTER = """
import signal, socket, subprocess, sys, time
listener = socket.create_server(("127.0.0.1", 0))
sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
start = lambda: subprocess.Popen(sleeping, pass_fds=[listener.fileno()])
tracker = subprocess.Popen(sleeping)
workers = [start()]
signal.signal(signal.SIGHUP, lambda *_: workers.append(start()))
print(listener.getsockname()[1], flush=True)
while len(workers) < 2:
    time.sleep(0.05)
time.sleep(3)
workers[0].kill()
workers[0].wait()
time.sleep(60)
"""


@pytest.fixture
def master() -> Iterator[Server]:
    with subprocess.Popen([sys.executable, "-c", MASTER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), "", process.pid)
        for each in (*psutil.Process(process.pid).children(), process):
            each.kill()


def test_a_deploy_lasts_until_the_old_code_has_ended(master: Server) -> None:
    tracker, old = psutil.Process(master.leader).children()
    assert deploy(master) == "SIGHUP"
    assert (tracker.is_running(), old.is_running()) == (True, False), "who serves nobody is not waited for"
    assert len(psutil.Process(master.leader).children()) == 2


def test_what_a_hangup_ends_cannot_be_deployed_so() -> None:
    with subprocess.Popen(["sleep", "60"]) as process, pytest.raises(NotPossible, match="is ended by SIGHUP"):
        deploy(Server(0, "", process.pid))


def test_what_has_not_ended_with_the_run_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings, "deploy", lambda _: "SIGHUP")
    found = Happenings(Server(0, "", 1), SCENARIOS["deploy"], Usage("", ""))
    found.poll(2.5)
    until(lambda: found.done, "it is done")
    (seen,) = found.join(time.time() + 1)
    assert (seen.at, seen.note) == (2.5, "")
    (unseen,) = found.join(time.time() - 60)
    assert (unseen.at, "by SIGHUP took longer than the run" in unseen.note) == (None, True)


def test_the_process_that_holds_most_connections_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    usage, killed = Usage("", ""), []
    usage.pids = {"server": [11, 12, 13], "worker": [21, 22]}
    monkeypatch.setattr(happenings, "connected", lambda pid, _: {11: 2, 12: 9, 13: 0}.get(pid, 0))
    monkeypatch.setattr(os, "kill", lambda *told: killed.append(told))
    assert kill(Server(0, "", None), usage, "connections") == "kill -9 of a server, which held 9 of 11 connections"
    assert kill(Server(0, "", None), usage, "application") == "kill -9 of a worker"
    assert killed == [(12, signal.SIGKILL), (22, signal.SIGKILL)]
    with pytest.raises(NotPossible, match="has no Redis"):
        kill(Server(0, "", None), usage, "redis")
