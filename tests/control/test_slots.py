"""Slots, with a supervisord that a test plays."""

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asgictl.control.slots import Interrupted, Slots
from asgictl.control.supervisord_client import HOLDERS
from asgictl.errors import StartError

CONFIGURATION = Path(__file__).parents[2] / "supervisor.conf"


class Supervised(Slots):
    """Four slots of workers and two of interfaces; what starts behaves as `becomes` says."""

    def __init__(self, run_dir: Path, becomes: str = "RUNNING") -> None:
        super().__init__(run_dir, threading.Event())
        self.stopping = self._stopping
        self.becomes = becomes
        self.states = {f"worker-0{number}": "STOPPED" for number in range(4)} | {"interface-00": "RUNNING"}
        self.ready_reports: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.ordered: list[str] = []
        supervisor: Any = self
        self._supervisor = self.play = Play(supervisor)  # type: ignore[assignment]

    def _forget(self, names: list[str]) -> None:
        self.failures[:] = [failure for failure in self.failures if failure["process"] not in names]

    def reports(self) -> dict[str, Any]:
        return {"ready": self.ready_reports, "failed": self.failures, "rejections": {}}


class Play:
    def __init__(self, slots: Supervised) -> None:
        self._slots = slots

    def processes(self) -> list[dict[str, Any]]:
        return [
            {
                "group": name.partition("-")[0],
                "name": name,
                "statename": state,
                "exitstatus": -(state == "EXITED"),
                "pid": 0,
            }
            for name, state in self._slots.states.items()
        ]

    def process(self, group: str, name: str) -> dict[str, Any]:
        return next(each for each in self.processes() if each["name"] == name)

    def start(self, group: str, name: str) -> None:
        slots = self._slots
        slots.ordered.append(f"start {group}:{name}")
        slots.states[name] = slots.becomes
        if name == "worker-00" and slots.becomes != "RUNNING":
            (slots._run_dir / "log").mkdir(exist_ok=True)
            with slots._log(name).open("a") as log:
                log.write("out of luck\n")
        if slots.becomes == "RUNNING":
            slots.ready_reports.append({"process": name})

    def stop(self, group: str, name: str) -> None:
        self._slots.ordered.append(f"stop {group}:{name}")
        self._slots.states[name] = "STOPPED"


def soon() -> float:
    return time.monotonic() + 0.1


def later() -> float:
    return time.monotonic() + 60


def test_free_slots_are_started_and_the_holder_of_the_socket_with_them(tmp_path: Path) -> None:
    slots = Supervised(tmp_path)
    slots.states["worker-01"] = "RUNNING"
    assert slots.start("worker", 2, later()) == ["worker-00", "worker-02"]
    assert slots.serving("worker") == ["worker-00", "worker-01", "worker-02"]
    slots.states["interface-01"] = "STOPPED"
    assert slots.start("interface", 1, later()) == ["interface-01"]
    assert slots.ordered[-1] == f"start interface:{HOLDERS['interface']}"


def test_more_than_are_free_cannot_start(tmp_path: Path) -> None:
    slots = Supervised(tmp_path)
    with pytest.raises(StartError, match="only 4 more worker"):
        slots.start("worker", 5, soon())
    assert slots.ordered == []


@pytest.mark.parametrize("state", ["BACKOFF", "EXITED", "FATAL"])
def test_one_that_ends_takes_those_beside_it_and_its_last_lines_are_told(
    tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "worker-00.log").write_text("of another, before\n")
    monkeypatch.setattr("asgictl.control.slots.HOW_SECONDS", 0.05)  # nobody says how
    slots = Supervised(tmp_path, state)
    with pytest.raises(StartError, match=r"worker-00: ended before .*\nout of luck") as caught:
        slots.start("worker", 2, later())
    assert "of another" not in str(caught.value)
    assert slots.ordered[-2:] == ["stop worker:worker-00", "stop worker:worker-01"]


def test_how_a_process_ended_is_told_once_the_controller_knows(tmp_path: Path) -> None:
    slots = Supervised(tmp_path, "EXITED")
    failure = {"process": "worker-00", "pid": 1, "reason": "", "exit_code": 8}
    failing = threading.Timer(0.05, slots.failures.append, [failure])
    knowing = threading.Timer(0.1, failure.update, [{"how": "died: exit status 9"}])
    failing.start()
    knowing.start()
    with pytest.raises(StartError, match=r"worker-00: ended before it was ready: died: exit status 9.*\nout of luck"):
        slots.start("worker", 1, later())
    failing.join()
    knowing.join()


def test_what_a_process_said_before_it_gave_up_is_told_with_its_exit_status(tmp_path: Path) -> None:
    slots = Supervised(tmp_path, "STARTING")
    old = {"process": "worker-00", "pid": 1, "reason": "of another, before", "exit_code": 5}
    slots.failures.append(old)
    failing = threading.Timer(
        0.05, slots.failures.append, [{**old, "pid": 2, "reason": "the cellar is flooded", "exit_code": 3}]
    )
    failing.start()
    with pytest.raises(StartError, match="the cellar is flooded") as caught:
        slots.start("worker", 1, later())
    failing.join()
    assert caught.value.exit_code == 3


def test_the_deadline_and_an_interruption_leave_nothing_that_had_started(tmp_path: Path) -> None:
    slots = Supervised(tmp_path, "STARTING")
    with pytest.raises(StartError, match="gave up waiting for worker-00"):
        slots.start("worker", 1, soon())
    slots.stopping.set()
    with pytest.raises(Interrupted):
        slots.start("worker", 1, soon())
    assert slots.serving("worker") == []


def test_a_stop_counts_what_had_to_be_killed(tmp_path: Path) -> None:
    slots = Supervised(tmp_path)
    names = slots.start("worker", 2, later())
    stop = slots.play.stop

    def killing(group: str, name: str) -> None:
        stop(group, name)
        slots.states[name] = "EXITED" if name == "worker-00" else "STOPPED"

    slots.play.stop = killing  # type: ignore[method-assign]
    assert slots.stop("worker", names) == 1


def test_holders_are_the_last_slots_in_the_configuration() -> None:
    sections = re.split(r"^\[", CONFIGURATION.read_text(), flags=re.M)
    for group, holder in HOLDERS.items():
        (section,) = [each for each in sections if each.startswith(f"fcgi-program:{group}]")]
        last = int(holder.rpartition("-")[2])
        assert f"numprocs = {last + 1}\n" in section
        assert f"[ %(process_num)d = {last} ]" in section
