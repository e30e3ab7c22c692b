"""What `startproject` makes, with no line changed, in both modes."""

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
