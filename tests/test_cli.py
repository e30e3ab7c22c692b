"""The command line: what it refuses, with which status and which words."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgictl import __version__
from asgictl.cli import main


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("REDIS", "NAME", "BIND", "TARGET", "THREADS", "RUN_DIR", "WORKERS", "MODE"):
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
    assert all(command in listed.output for command in ("start", "stop", "status", "interface", "worker"))
    assert "controller" not in listed.output
