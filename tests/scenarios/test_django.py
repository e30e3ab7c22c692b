"""What `startproject` makes, with no line changed and with an app, in both modes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MODES, Machine
from tests.scenarios.test_demo import get


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["mysite.wsgi:application", "mysite.asgi:application"])
def test_a_new_django_project_is_served(machine: Machine, tmp_path: Path, mode: str, target: str) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)], check=True)
    machine.directory = tmp_path
    machine.start(target, "--mode", mode, "--workers", "2")
    status, content_type, body = get(machine.url + "/")
    assert (status, content_type.partition(";")[0]) == (200, "text/html")
    assert b"The install worked successfully" in body
    assert get(machine.url + "/admin/")[0] == 200  # its login page, after a redirect
    assert get(machine.url + "/nowhere")[0] == 404
    assert get(machine.url + "/admin/login/", b"username=x")[0] == 403  # CSRF


URLS = "from django.urls import include, path\nurlpatterns = [path('', include('board.urls'))]"
BOARD_URLS = "from django.urls import path\nfrom board import views\nurlpatterns = [path('', views.index)]"
VIEW = "from django.http import HttpResponse\ndef index(request):\n    return HttpResponse({text!r})"


@pytest.mark.parametrize("mode", MODES)
def test_a_deploy_whose_views_cannot_be_imported_changes_nothing(machine: Machine, tmp_path: Path, mode: str) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)], check=True)
    (tmp_path / "board").mkdir()
    views = tmp_path / "board" / "views.py"
    (tmp_path / "mysite" / "urls.py").write_text(URLS)
    (tmp_path / "board" / "urls.py").write_text(BOARD_URLS)
    views.write_text(VIEW.format(text="one"))
    machine.directory = tmp_path
    machine.start("mysite.wsgi:application", "--mode", mode, "--workers", "1")

    views.write_text("import nonexistent_thing\n" + VIEW.format(text="two"))
    failed = machine.run("reload")
    assert failed.returncode == 3, failed.stderr
    assert f'File "{tmp_path}/mysite/urls.py"' in failed.stderr
    assert "ModuleNotFoundError: No module named 'nonexistent_thing'" in failed.stderr
    assert get(machine.url + "/")[2] == b"one"

    views.write_text(VIEW.format(text="two"))
    assert machine.run("reload", "--wait").returncode == 0
    assert get(machine.url + "/")[2] == b"two"
