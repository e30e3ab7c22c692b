"""What an operator's command asks of an instance, and what it says of the cost."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from asgictl.cli.main import main
from asgictl.control import deploys, instance
from asgictl.control.deploys import Cost
from asgictl.control.slots import Interrupted


class Stand:
    """Stands for the instance: keeps what it is asked for."""

    cost = Cost(0, 0)
    mode = "split"
    options: dict[str, str] = {}  # noqa: RUF012 - each test sets its own
    asked: list[Any] = []  # noqa: RUF012
    waited: list[bool] = []  # noqa: RUF012
    path = Path()

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name
        self.run_dir = self

    def described(self) -> dict[str, Any]:
        return {"mode": self.mode, "options": self.options}

    def replace(self, *arguments: Any, waits: bool) -> Cost:
        self.asked.append((self.name, *(each for each in arguments if not callable(each))))
        self.waited.append(waits)
        return self.cost

    def replace_all(self, *arguments: Any, waits: bool) -> Cost:
        return self.replace("all", *arguments, waits=waits)

    def scale(self, *arguments: Any, waits: bool) -> Cost:
        return self.replace(*arguments, waits=waits)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Stand]:
    monkeypatch.chdir(tmp_path)
    stand = type("Fresh", (Stand,), {"asked": [], "waited": [], "options": {}, "path": tmp_path})
    monkeypatch.setattr(instance, "Instance", stand)
    monkeypatch.setattr(deploys, "Deploys", stand)
    return stand


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "mode", "asked", "said"),
    [
        (["reload"], "split", ("default", "worker", ""), "reloaded workers"),
        (["reload", "--release", "r2"], "split", ("default", "worker", "r2"), "reloaded workers"),
        (["reload", "--interfaces"], "split", ("default", "interface", ""), "reloaded interfaces"),
        (["reload", "--all", "--release", "r2"], "split", ("default", "all", "r2"), "reloaded everything"),
        (["reload", "--all"], "inprocess", ("default", "all", ""), "reloaded everything"),
        (["reload", "--name", "shop"], "inprocess", ("shop", "server", ""), "reloaded servers"),
        (["restart", "redis"], "split", ("default", "redis", None), "restarted redis"),
        (["scale", "worker=3"], "split", ("default", "worker", 3), "worker: 3"),
    ],
)
def test_a_change_is_asked_for_once_and_said(
    stand: type[Stand], arguments: list[str], mode: str, asked: tuple[Any, ...], said: str
) -> None:
    stand.mode = mode
    result = run(*arguments)
    assert (result.exit_code, result.output) == (0, said + "\n")
    assert stand.asked == [asked]


def test_what_a_change_cost_is_said(stand: type[Stand]) -> None:
    stand.cost = Cost(4, 2)
    closed, killed = run("reload").output.split("; ")[1:]
    assert closed == "4 WebSockets were closed with 1012"
    assert killed == "2 processes did not drain in time and were killed\n"


def test_a_change_that_was_given_up_is_an_error(stand: type[Stand], monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*_: Any, waits: bool) -> Cost:
        raise Interrupted

    monkeypatch.setattr(stand, "replace", replace)
    result = run("reload")
    assert result.exit_code == 1
    assert "interrupted before all processes were ready" in result.output


@pytest.mark.parametrize("change", [["reload"], ["restart", "worker"], ["scale", "worker=3"]])
def test_a_change_waits_for_the_drain_where_it_is_told_to(stand: type[Stand], change: list[str]) -> None:
    run(*change)
    run(*change, "--wait")
    assert stand.waited == [False, True]


@pytest.mark.parametrize("counts", [["redis=1"], ["worker="], ["worker"], ["worker=2", "interface=x"], ["worker=0"]])
def test_of_counts_with_a_mistake_none_is_asked_for(stand: type[Stand], counts: list[str]) -> None:
    assert run("scale", *counts).exit_code == 2
    assert stand.asked == []


def test_interfaces_are_not_for_one_process(stand: type[Stand]) -> None:
    stand.mode = "inprocess"
    assert run("reload", "--interfaces").exit_code == 2


def test_interfaces_have_no_release(stand: type[Stand]) -> None:
    assert run("reload", "--interfaces", "--release", "r2").exit_code == 2
    assert stand.asked == []


def test_logs_are_those_of_a_role(stand: type[Stand]) -> None:
    (stand.path / "log").mkdir()
    (stand.path / "log" / "worker-00.log").write_text("from a worker\n")
    (stand.path / "log" / "interface-00.log").write_text("from an interface\n")
    result = run("logs", "worker")
    assert "from a worker" in result.output
    assert "from an interface" not in result.output
    assert "from an interface" in run("logs").output
    assert run("logs", "*").exit_code == run("logs", "[").exit_code == 2
    refused = run("logs", "redis")
    assert refused.exit_code == 2
    assert "process redis has no log; there are logs of interface, worker" in refused.output


@pytest.mark.parametrize("since", ["nans", "infd", "1e10m", "-1h", "d", "0001-01-01", "yesterday"])
def test_a_time_that_no_clock_has_is_refused(since: str) -> None:
    refused = run("logs", "--since", since)
    assert refused.exit_code == 2
    assert "use 90s, 10m, 2h, 1d" in refused.output
