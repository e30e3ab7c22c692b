"""What people type, and what their machine is like: it works, or is refused by its name."""

import subprocess

import click
import pytest

from asgictl.cli.start import start
from tests.conftest import Machine
from tests.faults.conftest import Site, both_modes, site_of

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]
"""
site = site_of(APP, "--workers", "1")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1e10", "1,5"])
@pytest.mark.parametrize("option", ["--drain-seconds", "--timeout", "--start-seconds", "--shutdown-delay"])
def test_seconds_are_a_number(option: str, value: str) -> None:
    """C19."""
    refused = ""
    try:
        start.make_context("start", [option, value])
    except click.UsageError as error:
        refused = error.format_message()
    assert option in refused


def tried(machine: Machine, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Start an instance with more in its environment, and stop it."""
    machine.directory = machine.runtime / "site"
    machine.directory.mkdir()
    (machine.directory / "app.py").write_text(APP)
    machine.environment = machine.environment | environment
    bind = f"127.0.0.1:{machine.port}"
    done = machine.run("start", "app:app", "--workers", "1", "--start-seconds", "60", "--bind", bind, "-d", *arguments)
    machine.stop()
    (machine.directory / "app.py").unlink()
    return done


def is_right(done: "subprocess.CompletedProcess[str]", *names: str) -> bool:
    """Whether a command works, or is refused with a status for it, one of these names, and no traceback."""
    named = any(name in done.stderr for name in names)
    return done.returncode == 0 or (done.returncode in {2, 5} and named and "Traceback" not in done.stderr)


@pytest.mark.parametrize("query", ["?decode_responses=True", "?foo=bar", "?socket_timeout=abc", "/abc"])
def test_a_url_of_redis(machine: Machine, url_of_valkey: str, query: str) -> None:
    """C19."""
    done = tried(machine, "--redis", url_of_valkey + query)
    assert is_right(done, query.strip("?/").partition("=")[0], "is not a URL of Redis")


@both_modes
def test_a_percent_sign_in_the_run_directory(machine: Machine, mode: str) -> None:
    """C19: supervisord's own sign."""
    outer = machine.runtime
    machine.runtime = outer / "a%sb"  # where the fixture looks for processes that are left
    machine.runtime.mkdir(mode=0o700)
    done = tried(machine, "--mode", mode, XDG_RUNTIME_DIR=str(machine.runtime))
    assert is_right(done, "%")


@pytest.mark.soak
@both_modes
def test_warnings_that_are_errors(machine: Machine, mode: str) -> None:
    """C19."""
    assert is_right(tried(machine, "--mode", mode, PYTHONWARNINGS="error"), "PYTHONWARNINGS")


@pytest.mark.soak
def test_a_locale_without_letters(machine: Machine) -> None:
    """C19."""
    done = tried(machine, LC_ALL="C")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ["*", "../*", "[", "?orker", "nobody"])
def test_logs_of_a_pattern(site: Site, role: str) -> None:
    """C19: a role is a word, no pattern."""
    done = site("split").run("logs", role)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_json_that_is_nested_too_deep(machine: Machine, url_of_valkey: str) -> None:
    """C19."""
    nested = '{"a":' + "[" * 1100 + "]" * 1100 + "}"
    done = machine.run("send", "--redis", url_of_valkey, "--channel", "x", "--json", nested)
    assert done.returncode == 2
    assert "--json" in done.stderr
