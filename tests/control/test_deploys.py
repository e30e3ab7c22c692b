"""Deploys, of an instance whose slots a test plays."""

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from asgictl.config import Bind, InstanceConfig
from asgictl.control import deploys as module
from asgictl.control.deploys import REDIS_STAYS, SUPERVISORD_STAYS, Cost, Deploys, Drained
from asgictl.control.description import describe
from asgictl.control.registry import UNKNOWN
from asgictl.control.slots import Interrupted
from asgictl.errors import NotRunning, StartError
from asgictl.machine.run_dir import DESCRIPTION, RunDir

SOCKETS = 20  # that each interface holds


class Played:
    """Slots. keeps: of what starts; broken: slots in which nothing starts; order: what was asked for."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._free = count(4)  # numbers of slots
        self.keeps: str | None = ""
        self.broken: dict[str, BaseException] = {}
        self.order: list[str] = []
        self.moves: dict[str, dict[str, int]] = {}
        self.ends: Callable[[str], None] = lambda name: None
        self.ready: dict[str, dict[str, Any]] = {}
        for name in ("controller", "interface-00", "interface-01", "worker-00"):
            self.become_ready(name)

    def become_ready(self, name: str) -> None:
        """A process is ready in a slot; its pid is 100 and the slot's number."""
        report = {"process": name, "pid": 100 + int(name.partition("-")[2] or 99)}
        self.ready[name] = report | ({} if self.keeps is None else {"keeps": self.keeps})

    def serving(self, group: str) -> list[str]:
        return sorted(each for each in self.ready if each.startswith(group))

    def reports(self) -> dict[str, Any]:
        return UNKNOWN | {"ready": list(self.ready.values()), "moves": self.moves}

    def release(self, _names: Any) -> str:
        return ""

    def start(self, group: str, number: int, _deadline: float, is_ready: Any = None) -> list[str]:
        names = [group] if group == "controller" else [f"{group}-{next(self._free):02}" for _ in range(number)]
        for name in names:
            if error := self.broken.get(name):
                raise error
            self.order.append(f"start {name}")
            self.become_ready(name)
        return names

    def stop(self, group: str, names: list[str]) -> int:
        self.drain(group, names)
        return 0

    def drain(self, _group: str, names: list[str]) -> None:
        for name in names:
            pid = self.ready.pop(name)["pid"]
            try:
                successor = " for " + self._run_dir.read(f"successor-{pid}")
            except FileNotFoundError:
                successor = ""
            self.order.append(f"drain {name}{successor}")

    def await_end(self, _group: str, names: list[str]) -> int:
        for name in names:
            self.ends(name)
        return 0


class Supervisord:
    def __init__(self, *_: Any) -> None: ...

    def answers(self) -> bool:
        return True

    def pid(self) -> int:
        return os.getpid()


class Stage:
    def __init__(self) -> None:
        self.deploys = Deploys("shop")
        self.slots = Played(self.deploys._run_dir)
        self.deploys._slots = self.slots  # type: ignore[assignment]
        self.told: list[str] = []

    def tell(self, step: str) -> None:
        self.told.append(step)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run_dir = RunDir.of("shop")
    run_dir.create()
    config = InstanceConfig("shop", "split", "m:a", Bind("h:1"), workers=1, threads=1, interfaces=2)
    run_dir.write(DESCRIPTION, json.dumps(describe(config)))
    run_dir.write("release", "one")
    made = Stage()
    monkeypatch.setattr(module, "Supervisor", Supervisord)
    monkeypatch.setattr(module, "check_installed", lambda _pid: "9.9")
    held = [{"process": f"interface-0{number}", "websockets": SOCKETS, "http": number} for number in range(4)]
    monkeypatch.setattr(module, "status", lambda _name: {"processes": held})
    monkeypatch.setattr(module, "_clock", lambda seconds: f"+{seconds:.0f}")
    return made


def test_each_interface_hands_over_to_the_one_that_takes_its_place(stage: Stage) -> None:
    assert stage.deploys.replace("interface", "", stage.tell) == Cost(0, 0)
    assert stage.slots.order == [
        *("start interface-04", "drain interface-00 for 104"),
        *("start interface-05", "drain interface-01 for 105"),
    ]
    (handed, _) = [step for step in stage.told if "over" in step]
    assert handed == f"handing over {SOCKETS} WebSockets of interface-00 to interface-04, until +60 at the latest"


@pytest.mark.parametrize("keeps", ["TLS ends here", None])
def test_what_cannot_move_drains(stage: Stage, keeps: str | None) -> None:
    """None: an interface of a release that hands nothing over."""
    stage.slots.keeps = keeps
    stage.deploys.replace("interface", "", stage.tell)
    assert "drain interface-00" in stage.slots.order
    open_ones = f"{SOCKETS} WebSockets (closed by +20) and 0 requests"
    assert f"draining interface-00: {open_ones}, until +185 at the latest" in stage.told


def test_a_worker_that_drains_closes_its_applications_sockets_by_the_end_of_its_drain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = json.loads(stage.deploys._run_dir.read(DESCRIPTION))
    described["options"] = {"ASGICTL_DRAIN_SECONDS": "600"}
    stage.deploys._run_dir.write(DESCRIPTION, json.dumps(described))
    stage.slots.become_ready("worker-00")
    held = [{"process": "worker-00", "websockets": 5, "http": 1}]
    monkeypatch.setattr(module, "status", lambda _name: {"processes": held})
    stage.deploys.replace("worker", None, stage.tell)
    told = "draining worker-00: 5 WebSockets (closed by +600) and 1 request, until +640 at the latest"
    assert told in stage.told


def test_interfaces_that_are_too_many_spread_their_sockets_over_those_that_stay(stage: Stage) -> None:
    for number in range(2, 5):
        stage.slots.become_ready(f"interface-0{number}")
    stage.deploys.scale("interface", 2, stage.tell)
    drained = [step for step in stage.slots.order if step.startswith("drain")]
    assert drained == ["drain interface-02 for 100", "drain interface-03 for 101", "drain interface-04 for 100"]
    assert stage.deploys._run_dir.description()["interfaces"] == 2


def test_what_a_change_cost_is_what_was_closed(stage: Stage) -> None:
    """The first of two closes three at its deadline, the other moves nothing."""
    stage.slots.moves = {"interface-00": {"moved": 100, "refused": 0, "overdue": 1}}

    def ends(name: str) -> None:
        if name == "interface-00":
            stage.slots.moves = {name: {"moved": 117, "refused": 2, "overdue": 4}}

    stage.slots.ends = ends
    assert stage.deploys.replace("interface", waits=True) == Cost(3 + SOCKETS, 0)


def test_sockets_that_all_moved_cost_nothing() -> None:
    drained = Drained("interface", "interface-00", SOCKETS, {})
    assert drained.closed({"moved": SOCKETS - 1, "overdue": 0}) == 0


@pytest.mark.parametrize("error", [StartError("out of luck"), Interrupted()])
def test_what_serves_on_is_told_with_what_had_been_replaced(stage: Stage, error: BaseException) -> None:
    stage.slots.broken = {f"interface-0{number}": error for number in (4, 6)}
    with pytest.raises(type(error)):
        stage.deploys.replace("interface", "", stage.tell)
    assert stage.told[-1] == "nothing has changed: interface-00, interface-01 still serve"
    with pytest.raises(type(error)):
        stage.deploys.replace("interface", "", stage.tell)
    assert stage.told[-1] == "interface-00 had been replaced: interface-01 still serves"
    assert stage.deploys._run_dir.read("release") == "one"


def test_everything_but_supervisord_and_redis_is_replaced_in_order(stage: Stage) -> None:
    assert stage.deploys.replace_all("two", stage.tell) == Cost(0, 0)
    assert [step.split(" for ")[0] for step in stage.slots.order] == [
        *("drain controller", "start controller"),
        *("start interface-04", "drain interface-00", "start interface-05", "drain interface-01"),
        *("start worker-06", "drain worker-00"),
    ]
    assert stage.told[0] == "asgictl 9.9 is installed"
    assert stage.told[-2:] == [SUPERVISORD_STAYS, REDIS_STAYS]
    assert stage.deploys._run_dir.read("release") == "two"


def test_a_worker_that_does_not_start_is_told_with_what_had_been_replaced(stage: Stage) -> None:
    stage.slots.broken = {"worker-06": StartError("out of luck")}
    with pytest.raises(StartError, match="out of luck"):
        stage.deploys.replace_all("two", stage.tell)
    assert stage.told[-1] == "controller, interface-00, interface-01 had been replaced: worker-00 still serves"
    assert stage.deploys._run_dir.read("release") == "one"


def test_roles_are_those_of_the_mode(stage: Stage) -> None:
    with pytest.raises(NotRunning, match="--mode=split has no server"):
        stage.deploys.replace("server")
    assert stage.slots.order == []


def test_a_redis_of_somebody_elses_is_not_restarted(stage: Stage) -> None:
    run_dir = stage.deploys._run_dir
    run_dir.write(DESCRIPTION, json.dumps({**run_dir.description(), "redis": "external"}))
    with pytest.raises(NotRunning, match="this instance has no embedded Redis"):
        stage.deploys.replace("redis")
    assert stage.slots.order == []


def test_a_controller_that_has_ended_is_started(stage: Stage) -> None:
    del stage.slots.ready["controller"]
    assert stage.deploys.replace("controller") == Cost(0, 0)
    assert stage.slots.order == ["start controller"]


def test_a_controller_that_has_just_begun_is_given_time_to_hear_of_interfaces(stage: Stage) -> None:
    heard = iter([{}, {}, stage.slots.ready])
    stage.slots.reports = lambda: UNKNOWN | {"ready": list(next(heard, stage.slots.ready).values())}  # type: ignore[method-assign]
    stage.deploys.scale("interface", 1)
    assert stage.slots.order == ["drain interface-01 for 100"]
