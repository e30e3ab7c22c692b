"""The wheel in a clean environment, outside the repository."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Machine
from tests.scenarios.test_demo import get

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("asgictl-*.whl"))


def test_the_wheel_holds_every_module_and_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = {name for name in tracked if name.startswith("asgictl/") and (ROOT / name).is_file()}
    wanted |= {f"asgictl/{name}" for name in tracked if name.startswith(("interface/", "worker/", "loadtests/"))}
    assert wanted - held == set()
    assert {name.split("/")[0] for name in held} == {"asgictl", wheel.name.rpartition("-py3")[0] + ".dist-info"}


@pytest.mark.timeout(600)
def test_the_wheel_serves_in_a_clean_environment(wheel: Path, machine: Machine, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    install = [python, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[embedded]"]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)
    machine.directory = tmp_path
    machine.python = python
    for name in ("worker.py", "interface.py"):  # a user's own modules of these names keep working
        (tmp_path / name).write_text("name = __name__\n")
    (tmp_path / "site_app.py").write_text(
        "import interface, worker\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [f'{worker.name} {interface.name}'.encode()]\n"
    )
    machine.start("site_app:app", "--workers", "1")
    assert get(machine.url + "/")[2] == b"worker interface"
    machine.stop()
    machine.start("--workers", "1")
    assert get(machine.url + "/hello")[2] == b"Hello, world!"
    assert "pip install 'asgictl[compare]'" in machine.run("compare").stderr
