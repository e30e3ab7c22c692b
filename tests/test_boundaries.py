"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(folder: str) -> set[str]:
    names = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("folder", "banned"),
    [
        ("interface", ("asgictl.worker", "asgictl.app.target", "asgictl.app.run", "asgictl.demo", "worker")),
        ("worker", ("asgictl.interface", "interface", "uvicorn", "gunicorn")),
        ("loadtests", ("asgictl.interface", "asgictl.worker", "asgictl.layers", "benchmarks")),
    ],
)
def test_the_two_sides_never_import_each_other(folder: str, banned: tuple[str, ...]) -> None:
    names = imported(folder)
    assert names, "nothing was read"
    assert not [name for name in names if name in banned or name.startswith(tuple(b + "." for b in banned))]


def test_the_lifecycle_imports_neither_redis_nor_asyncio() -> None:
    tree = ast.parse((ROOT / "interface" / "turns.py").read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {
        "collections",
        "dataclasses",
        "enum",
        "msgspec.structs",
        "asgictl.config",
        "asgictl.errors",
        "asgictl.wire.messages",
    }


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("asgictl.worker.process", ["uvicorn", "gunicorn", "supervisor", "asgictl.interface"]),
        ("asgictl.loadtests.command", ["locust", "gevent", "matplotlib", "psutil"]),
        ("asgictl.loadtests.page, asgictl.loadtests.comparison", ["locust", "gevent", "asgictl.worker"]),
        ("asgictl.interface.process", ["locust", "gunicorn", "supervisor", "asgictl.worker", "asgictl.target"]),
    ],
)
def test_a_process_loads_only_what_its_role_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
