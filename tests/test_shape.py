"""The shape that users were promised: where things lie, and what is installed with them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    """Return the names of distributions, without versions, extras and markers."""
    return {re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() for each in requirements}


@pytest.mark.parametrize("folder", ["interface", "worker", "loadtests", "tests"])
def test_a_folder_lies_at_the_top(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder).is_symlink()
    assert list((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", ["pyproject.toml", "supervisor.conf", "Dockerfile"])
def test_a_file_lies_at_the_top(file: str) -> None:
    assert (ROOT / file).is_file()
    assert not (ROOT / file).is_symlink()


def test_the_file_at_the_top_says_what_supervisord_reads() -> None:
    (used,) = (ROOT / "asgictl").rglob("supervisor.conf")
    assert used.read_text() == (ROOT / "supervisor.conf").read_text()


def test_what_serves_is_a_dependency_and_locust_is_of_an_extra() -> None:
    assert {"gunicorn", "redis", "supervisor", "uvicorn", "click"} <= names(PROJECT["dependencies"])
    assert "locust" in names(PROJECT["optional-dependencies"]["compare"])
    assert "locust" not in names(PROJECT["dependencies"])
