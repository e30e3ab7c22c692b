"""Both modes start and answer: the least that any set of dependencies has to bring about."""

import json

import pytest
from websockets.sync.client import connect

from tests.conftest import MODES, Machine
from tests.scenarios.test_demo import SECONDS, get


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_starts_and_answers(machine: Machine, mode: str) -> None:
    machine.start(f"--mode={mode}", "--workers=1")
    assert get(machine.url + "/hello") == (200, "text/plain", b"Hello, world!")
    assert json.loads(get(machine.url + "/where")[2])["mode"] == mode
    with connect(machine.ws + "/ws/echo") as ws:
        ws.send("hello")
        assert ws.recv(SECONDS) == "hello"
