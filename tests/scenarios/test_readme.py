"""The README's commands, run as they stand there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import Machine, until
from tests.scenarios.test_demo import get

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_make_start_serves_and_ctrl_c_ends_it(machine: Machine) -> None:
    (command,) = [text for language, text in BLOCKS if language == "sh" and "make" in text]
    environment = machine.environment | {"ASGICTL_BIND": f"127.0.0.1:{machine.port}"}
    process = subprocess.Popen(command.split(), cwd=ROOT, env=environment, start_new_session=True)

    def serves() -> bool:
        try:
            return get(machine.url + "/hello")[2] == b"Hello, world!"
        except OSError:
            return False

    until(serves, "make start serves", 60)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.wait(60)
    assert machine.pids() == []


def test_the_commands_of_use_it(machine: Machine, tmp_path: Path) -> None:
    source, _ = [text for language, text in BLOCKS if language == "python"]
    (commands,) = [text for language, text in BLOCKS if language == "sh" and "asgictl" in text]
    (tmp_path / "app.py").write_text(source)
    environment = machine.environment | {
        "ASGICTL_BIND": f"127.0.0.1:{machine.port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    printed = []
    for command in commands.replace("127.0.0.1:8000", f"127.0.0.1:{machine.port}").splitlines():
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed.append(done.stdout)
    assert [text for text in printed if text == "Hello!\n"] == ["Hello!\n"] * 2
    assert "· split ·" in printed[0]
    assert printed[2].partition("\n\n")[0] in printed[0]
    assert "· inprocess ·" in printed[4]


def test_background_work_as_it_stands_there(machine: Machine, tmp_path: Path) -> None:
    _, source = [text for language, text in BLOCKS if language == "python"]
    (tmp_path / "jobs.py").write_text(source)
    machine.directory = tmp_path
    machine.start("jobs:app", "--workers", "1")
    assert get(machine.url + "/")[::2] == (202, b"soon\n")
    (tmp_path / "a.png").write_bytes(b"x" * 200)
    until((tmp_path / "a.small").exists, "the thumbnail is made")
    command = ["send", "--channel", "thumbnails", "--json", '{"file": "b.png"}']
    assert machine.run(*command).returncode == 0
    (tmp_path / "b.png").write_bytes(b"x")
    until((tmp_path / "b.small").exists, "the job is called again")


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`asgictl ([\w-]+)", README))
    helped = subprocess.run([sys.executable, "-m", "asgictl", "--help"], capture_output=True, text=True, check=True)
    assert named == {word for word in named if re.search(rf"^  {word} ", helped.stdout, re.MULTILINE)}
    assert {"start", "stop", "status", "interface", "worker"} <= named
