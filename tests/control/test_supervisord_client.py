"""How supervisord is asked, against one that stands still and one that refuses."""

import json
import socket
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ProtocolError

import pytest
from supervisor.xmlrpc import Faults

from asgictl.control.supervisord_client import SOCKET, NotAnswering, Supervisor
from asgictl.errors import NotRunning, StartError


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A supervisord that takes connections and says nothing; it has left no process id."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET)
        listener.listen()
        yield Supervisor(Path(), 0.05)


def test_one_that_stands_still_is_told_though_its_process_id_is_not_known(silent: Supervisor) -> None:
    for ask in (silent.answers, silent.processes, silent.pid, silent.shutdown):
        with pytest.raises(NotAnswering, match="pid unknown"):
            ask()


def test_one_that_is_gone_is_not_running(tmp_path: Path) -> None:
    assert Supervisor(tmp_path).answers() is False
    with pytest.raises(NotRunning):
        Supervisor(tmp_path).processes()


@pytest.mark.parametrize(
    "error", [Fault(20, "NO_FILE: redis-server"), ProtocolError("supervisord/RPC2", 500, "Internal Server Error", {})]
)
def test_an_order_that_it_cannot_carry_out_is_one_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("asgictl.control.supervisord_client.xmlrpc.client.ServerProxy", lambda *_, **__: _Proxy(fail))
    with pytest.raises(StartError, match=r"NO_FILE|500 Internal"):
        Supervisor(Path()).start("redis", "redis")


def test_what_is_started_is_asked_for_in_one_call_and_of_an_older_one_among_all_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [("worker", "worker-00", "RUNNING"), ("interface", "interface-32", "RUNNING"), ("worker", "w", "STOPPED")]
    slots = [{"group": group, "name": name, "statename": state} for group, name, state in names]

    def older() -> None:
        raise Fault(Faults.UNKNOWN_METHOD, "UNKNOWN_METHOD")

    def serve(call: Any) -> None:
        proxy = _Proxy(call, "asgictl.slots")
        setattr(proxy, "supervisor.getAllProcessInfo", lambda: slots)
        monkeypatch.setattr("asgictl.control.supervisord_client.xmlrpc.client.ServerProxy", lambda *_, **__: proxy)

    for call in (lambda: json.dumps(slots[:2]), older):
        serve(call)
        assert [each["name"] for each in Supervisor(Path()).started()] == ["worker-00"]

    def wrong() -> None:
        raise Fault(Faults.FAILED, "FAILED")

    serve(wrong)
    with pytest.raises(Fault):
        Supervisor(Path()).started()


class _Proxy:
    def __init__(self, call: Any, method: str = "supervisor.startProcess") -> None:
        setattr(self, method, call)
