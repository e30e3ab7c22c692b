"""Workers come and go with the load, with real processes."""

import threading
from pathlib import Path

import pytest

from tests.conftest import Machine, until
from tests.scenarios.test_demo import get

NAP = """
import time

def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Length", "1")])
    return [b"x"]
"""
CLIENTS = 12  # more than one worker serves without a wait


@pytest.mark.soak
def test_workers_come_with_a_load_and_go_after_it_and_no_request_fails(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "nap.py").write_text(NAP)
    machine.directory = tmp_path
    machine.start("nap:app", "--workers", "1..3")
    failed: list[int] = []
    stopping = threading.Event()

    def load() -> None:
        while not stopping.is_set():
            if (status := get(machine.url + "/")[0]) != 200:
                failed.append(status)

    def workers() -> int:
        return int(machine.status()["workers"])

    clients = [threading.Thread(target=load) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    until(lambda: workers() == 3, "there are as many as may be", 60)
    stopping.set()
    for client in clients:
        client.join()
    until(lambda: workers() == 1, "there are as few as may be", 90)
    assert failed == []
    until(lambda: "workers: 1 to " in machine.log("controller"), "it is logged")
