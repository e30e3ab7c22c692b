"""The oldest versions that pyproject.toml declares as enough."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import Machine
from tests.faults.conftest import exchange, request, status_of

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.soak
@pytest.mark.parametrize("package", ["redis", "prometheus-client"])
def test_the_oldest_version_that_is_declared_starts(machine: Machine, tmp_path: Path, package: str) -> None:
    """A18; pip fetches it. `make test-lowest` has all of them at once."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    floor = next(match[1] for each in declared if (match := re.match(rf"{package}>=([\d.]+)", each)))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "floor")]
    subprocess.run([*command, f"{package}=={floor}"], check=True)
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    machine.directory = tmp_path
    paths = [str(tmp_path / "floor"), os.environ.get("PYTHONPATH", "")]
    machine.environment = machine.environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    bind = f"127.0.0.1:{machine.port}"
    done = machine.run("start", "app:app", "--workers", "1", "--start-seconds", "60", "--bind", bind, "-d")
    assert done.returncode == 0
    assert status_of(exchange(machine, request(b"/"))) == 200
