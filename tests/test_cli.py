"""The command line: what it refuses, with which status and which words."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgictl import __version__
from asgictl.cli import main
from asgictl.configuration import InstanceConfig, WorkerConfig


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    roles = ("TIMEOUT", "ONLY_CHANNELS", "EXCLUDE_CHANNELS", "MAX_EVENTS", "MAX_MEMORY_MIB", "CAPACITY", "ROOT_PATH")
    for name in ("REDIS", "NAME", "BIND", "TARGET", "THREADS", "RUN_DIR", "WORKERS", "MODE", *roles):
        monkeypatch.delenv(f"ASGICTL_{name}", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["start", "--frobnicate"], "--frobnicate"),
        (["start", "--mode", "both"], "'split', 'inprocess'"),
        (["start", "--workers", "0"], "--workers"),
        (["start", "--workers", "many"], "--workers"),
        (["start", "--threads", "-1"], "--threads"),
        (["start", "--interfaces", "17"], "--interfaces"),
        (["start", "--name", "a b"], "letters, digits, - and _"),
        (["status", "--name", "x" * 33], "1 to 32"),
        (["start", "a:b", "c:d"], "c:d"),
        (["start", "--mode", "inprocess", "--interfaces", "2"], "--interfaces means nothing"),
        (["interface"], "--redis"),
        (["worker"], "--redis"),
        (["worker", "--redis", "redis://h", "--timeout", "-1"], "--timeout"),
        (["start", "--timeout", "soon"], "--timeout"),
        (["start", "--max-events", "-1"], "--max-events"),
        (["start", "--max-memory-mib", "1.5"], "--max-memory-mib"),
        (["start", "--capacity", "0"], "--capacity"),
        (["start", "--max-message-bytes", "0"], "--max-message-bytes"),
        (["dead-letters", "frobnicate"], "frobnicate"),
        (["dead-letters", "show"], "ID"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_exits_with_2(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["status", "stop"])
def test_an_instance_that_does_not_run_is_one_clear_line_and_exits_with_7(command: str) -> None:
    result = run(command, "--name", "shop")
    assert result.exit_code == 7
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "no instance 'shop' runs" in result.stderr
    assert "asgictl start" in result.stderr


@pytest.mark.parametrize("command", [["list"], ["show", "1-1"], ["purge"]])
def test_dead_letters_of_an_instance_that_does_not_run_want_to_be_told_where(command: list[str]) -> None:
    result = run("dead-letters", *command, "--name", "shop")
    assert (result.exit_code, result.stderr.count("\n")) == (7, 1)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[WorkerConfig]:
    """What workers were told to be."""
    told: list[WorkerConfig] = []
    monkeypatch.setattr("asgictl.worker.server.serve", lambda config, *_: told.append(config))
    monkeypatch.setattr("asgictl.runtime.enter", lambda _: None)
    monkeypatch.setattr("asgictl.cli._logging", lambda: None)
    return told


def test_a_worker_is_what_its_options_say(served: list[WorkerConfig]) -> None:
    options = ("--only-channels", "http.*", "--only-channels", "*.slow", "--exclude-channels", "*.fast")
    more = ("--timeout", "0.5", "--max-events", "9", "--max-memory-mib", "2", "--threads", "3", "--name", "shop")
    assert run("worker", "m:a", "--redis", "redis://h", *options, *more).exit_code == 0
    assert served == [WorkerConfig("shop", "redis://h", "m:a", 3, ("http.*", "*.slow"), ("*.fast",), 0.5, 9, 2 << 20)]


def test_a_worker_is_what_its_environment_says(served: list[WorkerConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGICTL_REDIS", "redis://h")
    monkeypatch.setenv("ASGICTL_ONLY_CHANNELS", "http.* *.slow")
    monkeypatch.setenv("ASGICTL_EXCLUDE_CHANNELS", "")
    monkeypatch.setenv("ASGICTL_TIMEOUT", "7")
    assert run("worker", "m:a").exit_code == 0
    assert [(config.only, config.exclude, config.timeout_seconds) for config in served] == [
        (("http.*", "*.slow"), (), 7)
    ]


def test_an_instance_hands_the_options_of_its_roles_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def start(_self: object, config: InstanceConfig) -> None:
        assert config.options["ASGICTL_ONLY_CHANNELS"] == "http.* *.slow"
        assert config.options["ASGICTL_EXCLUDE_CHANNELS"] == ""
        assert (config.options["ASGICTL_TIMEOUT"], config.options["ASGICTL_CAPACITY"]) == ("60.0", "5")
        raise Told

    monkeypatch.setattr("asgictl.instance.Instance.start", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    result = run("start", "--only-channels", "http.*", "--only-channels", "*.slow", "--capacity", "5")
    assert isinstance(result.exception, Told)


@pytest.mark.parametrize("command", ["status", "stop"])
def test_asking_for_an_instance_leaves_nothing_behind(command: str, tmp_path: Path) -> None:
    run(command)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("variable", "status"), [("ASGICTL_BIND", 4), ("ASGICTL_NAME", 2), ("ASGICTL_MODE", 2)])
def test_a_mistake_in_the_environment_is_told_like_one_on_the_command_line(
    variable: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "not good")
    result = run("start")
    assert result.exit_code == status
    assert "not good" in result.output or "1 to 32" in result.output


def test_a_malformed_address_exits_with_4() -> None:
    result = run("start", "--bind", "8000")
    assert result.exit_code == 4
    assert result.stderr.startswith("Error: --bind 8000: not an address")


def test_help_and_version_succeed() -> None:
    assert __version__ in run("--version").output
    listed = run("-h")
    assert listed.exit_code == 0
    assert all(
        command in listed.output for command in ("start", "stop", "status", "interface", "worker", "dead-letters")
    )
    assert "controller" not in listed.output
