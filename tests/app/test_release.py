"""What a release is called."""

import importlib
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


def test_target_s_own_package_counts_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert release_of("asgictl.demo:app") != release_of("nothing.imported:app")


def test_the_instance_s_name_comes_before_the_process_s_own(tmp_path: Path) -> None:
    assert release_of("m:a", "own", tmp_path) == "own"
    (tmp_path / FILE).write_text("instance")
    assert release_of("m:a", "own", tmp_path) == "instance"
    (tmp_path / FILE).write_text("")
    assert release_of("m:a", "own", tmp_path) == "own"
