"""What may stand for TARGET."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgictl.app.target import kind_of, load_target
from asgictl.errors import TargetError
from tests.conftest import Machine
from tests.faults.conftest import both_modes, kill

FACTORIES = """
class Site:
    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return [b"made"]


def create_app(test_config=None):
    return Site()


def create(name="x", *, debug=False):
    return Site()


def plain():
    return Site()


class Factories:
    @staticmethod
    def make():
        return Site()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a module of factories that can be imported."""
    name = "factories_of_rows"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "call",
    ["create_app()", "create_app(test_config=None)", "create(debug=True)", "create('y', debug=False)", "plain()"],
)
def test_a_factory_that_is_called_is_called(module: str, call: str) -> None:
    """C6, as gunicorn has it."""
    assert type(load_target(f"{module}:{call}").http["/"]).__name__ == "Site"


@pytest.mark.parametrize("name", ["create_app", "create", "plain"])
def test_the_name_of_a_factory_serves_or_is_refused_as_one(module: str, name: str) -> None:
    """C6, as uvicorn has it with --factory."""
    refusal = ""
    try:
        assert type(load_target(f"{module}:{name}").http["/"]).__name__ == "Site"
    except TargetError as error:
        refusal = str(error) or "nothing"
    assert not refusal or "factory" in refusal


def test_a_function_of_three_arguments_that_returns_a_coroutine_is_asgi() -> None:
    """C8."""

    async def serve(scope: Any, receive: Any, send: Any) -> None: ...

    def app(scope: Any, receive: Any, send: Any) -> Any:
        return serve(scope, receive, send)

    class Instance:
        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return serve(scope, receive, send)

    assert kind_of(app) == "ASGI"
    assert kind_of(Instance()) == "ASGI"


@both_modes
def test_a_process_that_gevent_has_patched_is_refused(machine: Machine, tmp_path: Path, mode: str) -> None:
    """A13."""
    source = "from gevent import monkey\n\nmonkey.patch_all()\n\n\ndef app(environ, start_response):\n    return []\n"
    (tmp_path / "app.py").write_text(source)
    machine.directory = tmp_path
    bind = f"127.0.0.1:{machine.port}"
    done = machine.run("start", "app:app", "--mode", mode, "--workers", "1", "--bind", bind, "-d")
    if done.returncode == 0:
        kill(machine)  # it cannot be stopped
    assert done.returncode == 3
    assert "gevent" in done.stderr
