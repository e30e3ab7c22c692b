"""Tasks of Django through real processes: none is lost or early, and each has one result, while others are killed."""

import importlib.util
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import pytest

from asgictl.app.outside import Sender
from asgictl.errors import RedisError
from asgictl.wire.state import decode_state
from tests.conftest import MODES, Machine, until
from tests.scenarios.test_background import pids
from tests.scenarios.test_demo import get
from tests.scenarios.test_faults import pids as ready
from tests.scenarios.test_http import waiting

IS_NATIVE = django.VERSION >= (6,)
HOME = "django.tasks" if IS_NATIVE else "django_tasks"
IS_THERE = IS_NATIVE or importlib.util.find_spec(HOME) is not None
pytestmark = pytest.mark.skipif(not IS_THERE, reason="NOT RUN: neither Django 6 nor django-tasks is installed")

BATCH = 50  # tasks that one request enqueues
SETTINGS = f"""
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["asgictl.django"{"" if IS_NATIVE else ', "django_tasks"'}]
TASKS = {{"default": {{"BACKEND": "asgictl.django.tasks.AsgictlBackend"}}}}
"""
TASKS = f"""
import os, secrets, time
from {HOME} import task

def note(*words):
    log = os.open("ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (" ".join(map(str, words)) + "\\n").encode())
    os.close(log)

@task(takes_context=True)
def relay(context, number, due):
    late, token = time.time() - due, secrets.token_hex(8)
    note("relay", number, context.task_result.id, token, f"{{late:.6f}}")
    follow.enqueue(number)
    time.sleep(0.005)
    return token

@task(takes_context=True)
def follow(context, number):
    note("follow", number, context.task_result.id)

@task
def hold(number):
    note("hold", number)
    while not os.path.exists("go"):
        time.sleep(0.02)
    time.sleep(0.05)
"""
URLS = """
import datetime, time
from django.http import JsonResponse
from django.urls import path
from django.utils import timezone
import tasks

def enqueue(request):
    first, count = int(request.GET["first"]), int(request.GET["count"])
    now, ids = timezone.now(), {}
    for number in range(first, first + count):
        task, due = tasks.relay.using(priority=number % 3 - 1), now
        if number % 2:
            due = now + datetime.timedelta(seconds=number % 7)
            task = task.using(run_after=due)
        ids[number] = task.enqueue(number, due.timestamp()).id
    return JsonResponse(ids)

def hold(request, first, count, priority):
    for number in range(first, first + count):
        tasks.hold.using(priority=priority).enqueue(number)
    return JsonResponse({})

urlpatterns = [path("enqueue", enqueue), path("hold/<int:first>/<int:count>/<int:priority>", hold)]
"""
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


@pytest.fixture
def site(machine: Machine, tmp_path: Path) -> Machine:
    machine.directory = tmp_path
    for name, source in (("settings", SETTINGS), ("tasks", TASKS), ("urls", URLS), ("wsgi", WSGI)):
        (tmp_path / f"{name}.py").write_text(source)
    return machine


def lines(site: Machine, kind: str) -> list[list[str]]:
    """Return what has run until now."""
    assert site.directory
    ran = site.directory / "ran"
    split = [line.split() for line in ran.read_text().splitlines()] if ran.exists() else []
    return [words[1:] for words in split if words[0] == kind]


def enqueue(site: Machine, first: int) -> dict[str, str]:
    """Enqueue a batch, and return the ids by number. A request that fails has enqueued nothing."""
    ids: dict[str, str] = {}

    def enqueued() -> bool:
        status, _, body = get(f"{site.url}/enqueue?first={first}&count={BATCH}")
        if status == 200:
            ids.update(json.loads(body))
        return status == 200

    until(enqueued, "a batch is enqueued")
    return ids


def kill_now_and_then(site: Machine, over: threading.Event, killed: list[str]) -> None:
    """Kill a worker every second, and Redis in the stead of every fifth."""
    while not over.wait(1):
        role = "redis" if len(killed) % 5 == 2 else "worker"
        found = pids(site, "redis") if role == "redis" else sorted(ready(site, "worker"))
        if len(found) > (role == "worker"):  # one goes on, however slowly the others begin
            os.kill(random.choice(found), signal.SIGKILL)
            killed.append(role)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_task_is_lost_or_early_and_each_has_one_result(site: Machine, count: int) -> None:
    site.start("wsgi:application", "--workers", "3")
    sender = Sender(f"unix://{site.runtime}/asgictl/default/redis.sock", "default")
    over, killed, ids = threading.Event(), list[str](), dict[str, str]()
    killer = threading.Thread(target=kill_now_and_then, args=(site, over, killed))
    killer.start()
    began = time.monotonic()
    try:
        for start in range(0, count, BATCH):
            ids |= enqueue(site, start)
        until(lambda: len({words[0] for words in lines(site, "follow")}) == count, "each runs", 600)
        until(lambda: {"redis", "worker"} <= set(killed), "each kind was killed")
    finally:
        over.set()
        killer.join()

    def results() -> dict[str, dict[str, Any]]:
        found = {number: sender.record(id) for number, id in ids.items()}
        return {number: decode_state(record) for number, record in found.items() if record}

    def succeeded() -> bool:
        with suppress(RedisError):  # it may have been killed last
            return {each["status"] for each in results().values()} == {"SUCCESSFUL"}
        return False

    until(succeeded, "each succeeds")
    runs = 0
    tokens: dict[str, set[str]] = defaultdict(set)
    followers: dict[str, set[str]] = defaultdict(set)
    for number, id, token, late in lines(site, "relay"):
        runs += 1
        assert id == ids[number]
        assert float(late) >= 0
        tokens[number].add(token)
    for number, id in lines(site, "follow"):
        followers[number].add(id)
    first = results()
    assert set(first) == set(tokens) == set(followers) == set(ids)
    assert {len(each) for each in followers.values()} == {1}, "what a task enqueues leaves once, however often it runs"
    assert all(each["return_value"] in tokens[number] for number, each in first.items())
    assert results() == first
    assert site.run("dead-letters", "list").stdout == ""
    seconds, again = time.monotonic() - began, runs - count
    print(f"{count} tasks and as many followers in {seconds:.0f} s, {again} ran again; killed: {killed}")


@pytest.mark.parametrize("mode", MODES)
def test_a_task_of_high_priority_does_not_wait_behind_others(site: Machine, mode: str) -> None:
    site.start("wsgi:application", "--mode", mode, "--workers", "1", "--threads", "1")
    assert get(f"{site.url}/hold/0/30/0")[0] == 200
    until(lambda: lines(site, "hold"), "the first runs")
    assert site.directory
    with ThreadPoolExecutor() as asking:
        answer = asking.submit(get, f"{site.url}/hold/100/5/1")
        until(lambda: answer.done() or (mode == "split" and waiting(site)), "it is answered, or waits for the job")
        (site.directory / "go").touch()
    assert answer.result()[0] == 200
    until(lambda: len(lines(site, "hold")) >= 35, "each runs")
    order = [int(number) for (number,) in lines(site, "hold")]
    last = max(index for index, number in enumerate(order) if number >= 100)
    assert sum(number < 100 for number in order[:last]) < 25, "a request does not wait until all have run, nor do they"
