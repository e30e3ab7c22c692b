"""What a release is called."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asgictl.app.release import FILE, release_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "released_site.py").write_text("import released_views\n")
    (tmp_path / "released_views.py").write_text("ONE = 1\n")
    (tmp_path / "not_imported.py").write_text("")
    importlib.invalidate_caches()
    importlib.import_module("released_site")
    return tmp_path


def test_without_a_name_it_is_a_hash_of_what_was_imported(site: Path) -> None:
    before = release_of("released_site:app")
    assert len(before) == 8
    (site / "not_imported.py").write_text("changed")
    assert release_of("released_site:app") == before
    (site / "released_views.py").write_text("ONE = 2\n")
    assert release_of("released_site:app") != before


Write = Callable[[str, str], None]
PRINT = """
import sys
from asgictl.app.release import release_of
sys.path.insert(0, sys.argv[1])
import mysite.wsgi
for name in sys.argv[2:]:
    __import__(name)
print(release_of("mysite.wsgi:application", app_dir=sys.argv[1]))
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files of a site that has an app beside TARGET's package; not all of it is imported with TARGET."""

    def write(file: str, text: str) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)

    for file in ("mysite/__init__.py", "chat/__init__.py", "chat/tasks.py", "chat/jobs/__init__.py", "chat/jobs/a.py"):
        write(file, "")
    write("mysite/wsgi.py", "import chat.models, board.models")
    write("chat/models.py", "")
    write("board/models.py", "")  # a package without __init__.py
    write("board/views.py", "")
    return write


def release_in(directory: Path, site: Path, *imports: str) -> str:
    """Return the release in a process of its own that has imported more than TARGET."""
    command = [sys.executable, "-c", PRINT, str(site), *imports]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("file", ["chat/models.py", "chat/tasks.py", "chat/jobs/a.py", "board/views.py"])
def test_all_of_the_site_s_packages_count_imported_yet_or_not(tmp_path: Path, write: Write, file: str) -> None:
    before = release_in(tmp_path, tmp_path)
    assert release_in(tmp_path, tmp_path, "chat.tasks", "chat.jobs.a", "json.tool") == before, "whatever is imported"
    write(file, "changed = 1")
    assert release_in(tmp_path, tmp_path) != before


def test_it_is_the_same_in_another_directory_and_for_app_dir(tmp_path: Path, write: Write) -> None:
    before = release_in(tmp_path, tmp_path)
    assert release_in(Path("/"), tmp_path) == before
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert release_in(moved, moved) == before


@pytest.mark.parametrize(
    "file",
    [
        "chat/node_modules/tool/gyp.py",  # in no package
        "chat/__pycache__/models.py",
        "tests/test_chat.py",  # of which nothing is imported
        "venv/lib/python3/site-packages/installed/part.py",
        "chat/notes.txt",
    ],
)
def test_what_is_not_the_site_s_code_does_not_count(tmp_path: Path, write: Write, file: str) -> None:
    packages = tmp_path / "venv/lib/python3/site-packages"
    write("venv/lib/python3/site-packages/installed/__init__.py", "")
    write("mysite/wsgi.py", f"import sys, chat.models\nsys.path.append({str(packages)!r})\nimport installed")
    before = release_in(tmp_path, tmp_path)
    write(file, "changed = 1")
    assert release_in(tmp_path, tmp_path) == before


def test_target_s_own_package_counts_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert release_of("asgictl.demo:app") != release_of("nothing.imported:app")


def test_the_instance_s_name_comes_before_the_process_s_own(tmp_path: Path) -> None:
    assert release_of("m:a", "own", tmp_path) == "own"
    (tmp_path / FILE).write_text("instance")
    assert release_of("m:a", "own", tmp_path) == "instance"
    (tmp_path / FILE).write_text("")
    assert release_of("m:a", "own", tmp_path) == "own"
