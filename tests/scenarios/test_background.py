"""Background work through real processes: nothing is early, lost, or sent twice."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from asgictl.app.outside import Sender
from asgictl.wire.messages import Job
from benchmarks.jobs import notes, send_all
from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS, get
from tests.scenarios.test_http import waiting

ROOT = Path(__file__).parents[2]
RUNS = {"STARTING", "RUNNING"}  # supervisord says the latter after a second
APPLICATION = """
import asyncio, os, signal, time
from asgictl import Application, Channel, Group, RetryLater, path

def log(*words):
    with open("ran", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def view(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    log("view")
    Channel(name).send({"from": "a view"}, immediately=environ["QUERY_STRING"] == "now")
    if environ["QUERY_STRING"] == "raise":
        raise ValueError("theirs")
    start_response("200 OK", [("Content-Length", "0")])
    return []

def join(message):
    message.accept()
    message.join("room")

def say(message):
    Channel("tell").send({"said": message.text})

def tell(message):
    log("tell", message.content, message.attempt)
    Group("room").send(text=f"{message.channel} {message.content}")

async def ask(message):
    Channel("tell").send({"from": "async"})

def later(message):
    log("later", message.attempt)
    Channel("tell").send({"later": message.attempt})
    if message.attempt < 3:
        raise RetryLater(0.01)

def fail(message):
    Channel("tell").send({"never": "sent"})
    raise ValueError("theirs")

def die(message):
    log("die", message.attempt)
    if not os.path.exists("cured"):
        os.kill(os.getpid(), signal.SIGKILL)

def pause(message):
    log("pause")
    while not os.path.exists("go"):
        time.sleep(0.02)
    time.sleep(0.05)

def hang(message):
    time.sleep(60)

async def wait(message):
    await asyncio.sleep(60)

app = Application(
    http=view,
    websocket=[path("/ws", connect=join, receive=say)],
    background={"tell": tell, "ask": ask, "later": later, "fail": fail, "die": die, "hang": hang, "wait": wait,
                "pause": pause},
)
"""


@pytest.fixture
def jobs(machine: Machine, tmp_path: Path) -> Machine:
    """A directory that holds the application; what its jobs have done stands in `ran`."""
    machine.directory = tmp_path
    (machine.directory / "jobs.py").write_text(APPLICATION)
    return machine


def has_run(machine: Machine, line: str, times: int = 1) -> Callable[[], bool]:
    assert machine.directory
    ran = machine.directory / "ran"
    return lambda: ran.exists() and ran.read_text().splitlines().count(line) >= times


def pids(machine: Machine, role: str) -> list[int]:
    processes = machine.status()["processes"]
    return [process["pid"] for process in processes if process["role"] == role and process["state"] in RUNS]


@pytest.mark.parametrize("mode", MODES)
def test_jobs_of_views_consumers_jobs_and_commands_run_in_both_modes(jobs: Machine, mode: str) -> None:
    """In-process with one process: background channels are what Redis runs for."""
    jobs.start("jobs:app", "--mode", mode, "--workers", "1")
    with connect(jobs.ws + "/ws") as ws:
        ws.send("hello")
        assert ws.recv(SECONDS) == "tell {'said': 'hello'}"
        for path in ("tell", "tell?now"):
            assert get(f"{jobs.url}/{path}")[0] == 200
            assert ws.recv(SECONDS) == "tell {'from': 'a view'}"
        get(jobs.url + "/ask")
        assert ws.recv(SECONDS) == "tell {'from': 'async'}"
        assert jobs.run("send", "--channel", "tell", "--json", '{"n": 1}', "--delay-seconds", "0.1").returncode == 0
        assert ws.recv(SECONDS) == "tell {'n': 1}"
        assert jobs.run("send", "--group", "room", "--text", "from a shell").returncode == 0
        assert ws.recv(SECONDS) == "from a shell"
        get(jobs.url + "/later")
        assert ws.recv(SECONDS) == "tell {'later': 3}", "a call that is to be repeated has sent nothing"
        assert has_run(jobs, "later 2")()
        get(jobs.url + "/fail")
        assert get(jobs.url + "/tell?raise")[0] == 500
        get(jobs.url + "/tell")
        assert ws.recv(SECONDS) == "tell {'from': 'a view'}", "a call or a view that failed has sent nothing"
    process = "worker-00" if mode == "split" else "server-00"
    until(lambda: jobs.log(process).count("jobs:app: background.fail failed") == 1, "its exception is logged")


@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_three_workers_die_of_is_a_dead_letter_until_it_is_requeued(jobs: Machine, mode: str) -> None:
    assert jobs.directory
    jobs.start("jobs:app", "--mode", mode, "--workers", "1")
    assert jobs.run("send", "--channel", "die", "--json", "{}").returncode == 0
    until(lambda: "background.die" in jobs.run("dead-letters", "list").stdout, "it is given up")
    assert (jobs.directory / "ran").read_text().splitlines() == ["die 1", "die 2", "die 3"]
    (jobs.directory / "cured").touch()
    assert jobs.run("dead-letters", "requeue").stdout == "1 sent again\n"
    until(has_run(jobs, "die 1", 2), "it runs anew")
    assert jobs.run("dead-letters", "list").stdout == ""


def test_a_request_does_not_wait_behind_a_backlog_of_slow_jobs(jobs: Machine) -> None:
    jobs.start("jobs:app", "--workers", "1")
    sender = Sender(f"unix://{jobs.runtime}/asgictl/default/redis.sock", "default")
    for number in range(40):
        sender.send(Job(f"job.{number}", 1, "pause", b""))
    until(has_run(jobs, "pause"), "the first runs")
    assert jobs.directory
    with ThreadPoolExecutor() as asking:
        answers = [asking.submit(get, jobs.url + "/tell") for _ in range(3)]
        until(lambda: waiting(jobs) == 3, "they wait for the job that runs")
        (jobs.directory / "go").touch()
    assert [each.result()[0] for each in answers] == [200] * 3
    until(has_run(jobs, "pause", 40), "each runs")
    ran = (jobs.directory / "ran").read_text().split("view", 3)
    assert ran[2].count("pause") < 10, "a request waits for the job that runs"


def test_a_job_that_takes_too_long_is_a_dead_letter_at_once(jobs: Machine) -> None:
    jobs.start("jobs:app", "--workers", "1", "--timeout", "1")
    for path in ("wait", "hang"):  # the latter ends its worker
        get(f"{jobs.url}/{path}")
        until(lambda: f"background.{path} " in jobs.run("dead-letters", "list").stdout, "it is given up")  # noqa: B023
    assert jobs.run("dead-letters", "list").stdout.count("took longer than 1 s") == 2
    get(jobs.url + "/tell")
    until(has_run(jobs, "tell {'from': 'a view'} 1"), "others run")


def test_what_cannot_be_sent_is_refused_where_it_is_sent(jobs: Machine) -> None:
    nowhere = jobs.run("send", "--channel", "tell", "--json", "{}")
    assert (nowhere.returncode, "ASGICTL_REDIS" in nowhere.stderr) == (5, True)
    jobs.start("jobs:app", "--workers", "1")
    assert get(jobs.url + "/nobody")[0] == 500
    until(lambda: "no background channel 'nobody'" in jobs.log("worker-00"), "it is named")
    for channel, content, status in (("nobody", "{}", 10), ("tell", "[]", 9), ("tell", "{", 2), ("a b", "{}", 9)):
        refused = jobs.run("send", "--channel", channel, "--json", content)
        assert (refused.returncode, refused.stderr.count("Error: ")) == (status, 1), refused.stderr


def test_delayed_jobs_outlive_a_redis_and_a_controller_that_are_killed(
    real_sends: None, machine: Machine, tmp_path: Path
) -> None:
    """The bar in short form; in full: make bars OPTIONS=background."""
    machine.directory, log, count = ROOT, tmp_path / "ran", 400
    machine.start("benchmarks.jobs:app", "--workers", "2")
    redis_url = f"unix://{machine.runtime}/asgictl/default/redis.sock"
    send_all(redis_url, log, [2 + 4 * number / count for number in range(count)])
    for role in ("redis", "controller"):
        os.kill(pids(machine, role)[0], signal.SIGKILL)
    until(lambda: len(notes(log)) >= count, "each runs", 60)
    ran = notes(log)
    assert sorted(note.number for note in ran) == list(range(count))
    assert min(note.late_seconds for note in ran) >= 0


def test_what_jobs_send_leaves_once_while_their_workers_are_killed(
    real_sends: None, machine: Machine, tmp_path: Path
) -> None:
    machine.directory, log, each, rounds = ROOT, tmp_path / "ran", 150, 3
    machine.start("benchmarks.jobs:app", "--workers", "2")
    redis_url = f"unix://{machine.runtime}/asgictl/default/redis.sock"
    for number in range(rounds):
        worker = pids(machine, "worker")[-1]
        send_all(redis_url, log, [0] * each, "relay", first=number * each)
        until(lambda: len(notes(log)) >= number * each + 10, "jobs run")  # noqa: B023 - not kept
        os.kill(worker, signal.SIGKILL)
        until(lambda: len({note.number for note in notes(log)}) == (number + 1) * each, "each runs", 60)  # noqa: B023
    assert len({note.id for note in notes(log)}) == rounds * each, "one that ran twice would have sent a second message"
