"""What docs/testing.md shows, written as it stands there, and run by pytest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
SECONDS = 120  # for one pytest on a busy machine


def write(directory: Path) -> None:
    """Write the page's files; a part that goes `at its end` is added."""
    for name, at_end, source in re.findall(r"```(?:python|toml)\n# (\S+?)(, at its end)?\n(.*?)```", PAGE, re.DOTALL):
        with (directory / name).open("a" if at_end else "x") as file:
            file.write(source)


def run(directory: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "asgictl.testing.plugin", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.stdout + done.stderr


def test_every_snippet_passes(tmp_path: Path) -> None:
    write(tmp_path)
    said = run(tmp_path)
    shown = "".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))  # "py" needs what is not installed here
    assert f"{shown.count('def test_')} passed" in said, said


def test_the_fixture_without_its_setting_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    (tmp_path / "pyproject.toml").unlink()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(":")]))
    said = run(tmp_path)
    assert "asgictl_instance needs the setting asgictl_target, such as app:application" in said
