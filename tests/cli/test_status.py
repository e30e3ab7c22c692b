"""status, ps, and which instance a command is for."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from asgictl.cli import status as module
from asgictl.cli.main import main
from asgictl.control import hosts, instance, supervisord_client
from asgictl.control import status as control
from asgictl.control.status_page import WRONG, Line
from asgictl.control.status_schema import Status
from asgictl.errors import NotRunning
from tests.control.samples import process
from tests.control.samples import status as sample


class Instances:
    """Instances of a machine, by name: how each is, or that it does not run."""

    def __init__(self, runtime: Path) -> None:
        self.found: dict[str, Status | None] = {}
        self.stopped: list[str] = []
        self._directory = runtime / "asgictl"

    def add(self, name: str, found: Status | None = None, **fields: Any) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        (self._directory / name).mkdir(mode=0o700)
        self.found[name] = found or sample(name=name, **fields)

    def status(self, name: str) -> Status:
        if found := self.found.get(name):
            return found
        raise NotRunning(f"no instance {name!r} is running")


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instances:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    made = Instances(tmp_path)

    class Stopped:
        def __init__(self, name: str) -> None:
            self.name = name

        def stop(self) -> int:
            made.status(self.name)
            made.stopped.append(self.name)
            return 0

    monkeypatch.setattr(control, "status", made.status)
    monkeypatch.setattr(instance, "Instance", Stopped)
    monkeypatch.setattr(supervisord_client.Supervisor, "pid", lambda _self: 4242)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_status_is_for_people_and_for_programs(instances: Instances) -> None:
    instances.add("default")
    assert json.loads(run("status", "--json").output) == instances.found["default"]
    assert run("status").output.startswith("asgictl 0 · default · split")


def test_a_check_says_what_needs_attention_and_has_a_status_of_its_own(instances: Instances) -> None:
    instances.add("default")
    assert (run("status", "--check").exit_code, run("status", "--check").output) == (0, "ok\n")
    instances.found["default"] = sample(warnings=["mend this", "and that"])
    done = run("status", "--check")
    assert (done.exit_code, done.output) == (15, "mend this\nand that\n")
    assert run("status", "--check", "--name", "other").exit_code == 7


@pytest.mark.parametrize("two", [["--json", "--check"], ["--watch", "--json"]])
def test_one_thing_is_shown_at_a_time(instances: Instances, two: list[str]) -> None:
    instances.add("default")
    assert run("status", *two).exit_code == 2


def test_a_watch_shows_it_again_until_the_instance_has_stopped(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances.add("default")
    seconds = iter([1, 2])

    def sleep(_seconds: float) -> None:
        if next(seconds) == 2:
            instances.found["default"] = None

    monkeypatch.setattr("asgictl.cli.status.time", SimpleNamespace(sleep=sleep))  # other tests' threads sleep, too
    done = run("status", "--watch")
    assert done.exit_code == 7
    assert done.output.count("asgictl 0 · default") == 2


class Terminal:
    """Takes the place of standard output."""

    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self.isatty = lambda: is_terminal
        self.encoding = "utf-8"

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "colored"),
    [(True, "", True), (True, "1", False), (False, "", False), (False, "1", False)],
)
def test_only_a_terminal_has_colours_and_not_with_no_color(
    is_terminal: bool, no_color: str, colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal(is_terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    module.show([Line("all is well"), Line("but this", WRONG)])
    assert terminal.text == "all is well\n" + ("\x1b[31m\x1b[1mbut this\x1b[0m\n" if colored else "but this\n")


def test_width_is_what_columns_says_else_wide_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert module.width() == 77
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("os.get_terminal_size", lambda _descriptor: (_ for _ in ()).throw(OSError))
    assert module.width() == module.WIDTH


def test_ps_lists_instances_and_how_they_are(instances: Instances) -> None:
    instances.add("blog", sample(process("server-00/7"), name="blog", mode="inprocess", warnings=["mend this"]))
    instances.add("shop", workers=8)
    instances.add("gone")
    instances.found["gone"] = None
    heading, blog, gone, shop = run("ps").output.splitlines()
    assert heading.split()[:3] == ["instance", "state", "supervisord"]
    assert blog.split()[:3] == ["blog", "1", "need"]
    assert gone.split()[:3] == ["gone", "not", "running"]
    assert shop.split() == ["shop", "well", "4242", "5.0", "s", "8", "split", "m:a", "http://h:1"]


def test_ps_without_instances_says_how_to_start_one(instances: Instances) -> None:
    assert "no instance is running here" in run("ps").output


def test_the_only_instance_needs_no_name(instances: Instances) -> None:
    instances.add("shop")
    assert run("status").output.startswith("asgictl 0 · shop")
    assert run("stop").output == "stopped shop\n"


def test_of_several_the_default_one_is_meant_else_the_name_is_demanded(instances: Instances) -> None:
    instances.add("shop")
    instances.add("blog")
    done = run("stop")
    assert (done.exit_code, instances.stopped) == (2, [])
    assert "give --name, one of blog, shop" in done.output
    instances.add("default")
    assert run("stop").output == "stopped default\n"
    assert run("stop", "--name", "shop").output == "stopped shop\n"


def test_the_file_s_name_is_meant_where_one_is_there(instances: Instances, tmp_path: Path) -> None:
    (tmp_path / "asgictl.toml").write_text('name = "blog"\n')
    instances.add("shop")
    assert "no instance 'blog' is running" in run("status").output


def test_all_are_stopped_and_one_that_cannot_be_keeps_no_other(instances: Instances) -> None:
    for name in ("blog", "gone", "shop"):
        instances.add(name)
    instances.found["gone"] = None
    done = run("stop", "--all")
    assert instances.stopped == ["blog", "shop"]
    assert done.exit_code == 7
    assert run("stop", "--all", "--name", "shop").exit_code == 2


def test_where_nothing_runs_the_default_instance_is_missing(instances: Instances) -> None:
    assert "no instance 'default' is running" in run("status").output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which Redis was asked, and of which instance."""
    found: list[tuple[str, str]] = []

    def status_of(redis_url: str, name: str) -> Status:
        found.append((redis_url, name))
        return sample(process("worker", host="app1"), name=name)

    monkeypatch.setattr(hosts, "status_of", status_of)
    return found


def test_all_hosts_of_a_redis_are_asked_for_from_anywhere(instances: Instances, asked: list[tuple[str, str]]) -> None:
    assert "app1" in run("status", "--redis", "redis://r", "--name", "shop").output
    assert json.loads(run("status", "--json", "--redis", "redis://r").output)["processes"][0]["host"] == "app1"
    assert asked == [("redis://r", "shop"), ("redis://r", "default")]


def test_the_redis_of_the_environment_counts_where_no_instance_runs(
    instances: Instances, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGICTL_REDIS", "redis://r")
    assert run("status").exit_code == 0
    assert asked == [("redis://r", "default")]
    instances.add("shop")
    assert "app1" not in run("status").output
    assert len(asked) == 1
    run("status", "--redis", "redis://r")
    assert asked[1:] == [("redis://r", "default")]
