"""Every command and snippet of README and docs/ is run as it stands there, or is marked as output."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from asgictl.cli.main import main
from tests.conftest import MODES, Machine, until
from tests.docs.page import FILES, KINDS, PAGES, ROOT, Reader, commands, fences
from tests.scenarios.test_demo import get

RUN = [page for page in PAGES if any(fence.language == "sh" for fence in fences(page))]


def test_make_start_serves_and_ctrl_c_ends_it(machine: Machine) -> None:
    (command,) = [fence.text for fence in fences(ROOT / "README.md") if fence.text.startswith("make ")]
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


def test_nginx_takes_the_configuration_of_the_guide(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        if os.environ.get("ASGICTL_DEMAND_NGINX"):
            pytest.fail("this run demands nginx, and there is none")
        pytest.skip("NOT RUN: no nginx on this machine")
    (text,) = [fence.text for fence in fences(ROOT / "docs" / "guides" / "nginx.md") if fence.language == "nginx"]
    (tmp_path / "nginx.conf").write_text(text)
    command = ["nginx", "-t", "-e", "stderr", "-g", f"pid {tmp_path}/pid;", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_the_scenario_of_contributing_passes(machine: Machine, tmp_path: Path, mode: str) -> None:
    (source,) = [fence.text for fence in fences(ROOT / "CONTRIBUTING.md") if fence.language == "python"]
    names: dict[str, Any] = {}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)  # noqa: S102
    (test,) = [each for key, each in names.items() if key.startswith("test_")]
    test(machine, tmp_path, mode)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=name)
def test_what_a_page_says_works(page: Path, machine: Machine, tmp_path: Path) -> None:
    Reader(machine, tmp_path).follow(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_block_says_what_it_is(page: Path) -> None:
    for fence in fences(page):
        assert fence.language in KINDS, f"{page.name}:{fence.line}: which kind? tests/docs/page.py has them"
        if fence.language in FILES:
            assert fence.file[0], f"{page.name}:{fence.line}: its first line names no file"
        if fence.language == "python":
            compile(fence.text, fence.file[0], "exec")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_command_takes_the_options_that_a_page_gives_it(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGICTL_REDIS", "redis://localhost")  # as the page says beside the command, or another place
    for arguments in commands(page):
        command: click.Command | None = main
        context = click.Context(main, **main.context_settings)
        while isinstance(command, click.Group):
            name_of_it, command, arguments = command.resolve_command(context, arguments)
        assert command
        command.make_context(name_of_it, arguments, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_command_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`asgictl ([a-z][\w-]*)", page.read_text()))
    assert named <= main.commands.keys()
