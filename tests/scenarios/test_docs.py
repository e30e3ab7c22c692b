"""What the pages on Django and Channels, and on tests of tasks, show: written into a project as it stands, and run."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES, Machine, until
from tests.scenarios.test_demo import SECONDS, get

DOCS = Path(__file__).parents[2] / "docs"
LOG_IN = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user, session = User.objects.create_user("ann"), SessionStore()
session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session.save()
print(session.session_key)
"""


def written(page: str, directory: Path, until: str = "") -> list[str]:
    """Write a page's modules, up to where it says `until`; returns the targets of its commands."""
    text = (DOCS / page).read_text()
    if until:
        text, found, _ = text.partition(until)
        assert found
    for name, source in re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(source)
    for name, source in re.findall(r"```python\n# (\S+), at its end\n(.*?)```", text, re.DOTALL):
        with (directory / name).open("a") as module:
            module.write(source)
    return re.findall(r"```sh\nasgictl start (\S+)\n```", text)


def run(directory: Path, *command: str) -> str:
    return subprocess.run(
        [sys.executable, *command], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> tuple[Machine, dict[str, str]]:
    """A Django project with a user who is logged in; and the header that says so."""
    machine.directory = tmp_path
    run(tmp_path, "-m", "django", "startproject", "mysite", ".")
    run(tmp_path, "manage.py", "migrate")
    return machine, {"Cookie": "sessionid=" + run(tmp_path, "-c", LOG_IN)}


def says(socket: ClientConnection, **said: Any) -> None:
    socket.send(json.dumps(said))


@pytest.mark.parametrize("mode", MODES)
def test_a_routing_list_of_channels_1(machine: Machine, tmp_path: Path, mode: str) -> None:
    machine.directory = tmp_path
    target, _ = written("from-channels-1.md", tmp_path)
    machine.start(target, "--mode", mode, "--workers", "2")
    url = f"{machine.ws}/chat/hall/"
    with connect(url + "?name=ann") as ann, connect(url + "?name=bob") as bob:
        ann.send("hi")
        for socket in (ann, bob):
            assert json.loads(socket.recv(SECONDS)) == {"name": "ann", "text": "hi"}
        bob.close()
        for number in range(200):
            ann.send(str(number))
        assert [json.loads(ann.recv(SECONDS))["text"] for _ in range(200)] == [str(n) for n in range(200)]
    for path in ("/chat/hall/", "/chat/HALL/?name=ann", "/elsewhere"):
        with pytest.raises(InvalidStatus) as refused:
            connect(machine.ws + path)
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("mode", MODES)
def test_a_routing_list_with_django(project: tuple[Machine, dict[str, str]], mode: str) -> None:
    machine, cookie = project
    assert machine.directory
    _, target = written("from-channels-1.md", machine.directory)
    machine.start(target, "--mode", mode, "--workers", "2")
    assert get(machine.url + "/")[0] == 200
    with pytest.raises(InvalidStatus) as refused:
        connect(machine.ws + "/")
    assert refused.value.response.status_code == 403
    with connect(machine.ws + "/", additional_headers=cookie) as socket:
        says(socket, command="send", room="hall", said="too early")
        assert socket.recv(SECONDS) == "join first"
        says(socket, command="join", room="hall")
        assert socket.recv(SECONDS) == "joined as ann"
        says(socket, command="send", room="hall", said="hi")
        assert socket.recv(SECONDS) == "ann: hi"
        run(machine.directory, "manage.py", "shell", "-c", "import django.contrib.sessions.models as m; "
            "m.Session.objects.all().delete()")  # fmt: skip
        says(socket, command="join", room="more")
        assert socket.recv(SECONDS) == "joined as ", "who has logged out is no user any more"


@pytest.mark.parametrize("mode", MODES)
def test_channels_4_before_and_after(project: tuple[Machine, dict[str, str]], mode: str) -> None:
    machine, cookie = project
    assert machine.directory
    written("from-channels-4.md", machine.directory, until="And this is the same for asgictl")
    with (machine.directory / "mysite" / "urls.py").open("a") as urls:
        urls.write("from chat.views import announce\nurlpatterns += [path('announce/<room>', announce)]\n")
    for is_after in (False, True):
        (target,) = written("from-channels-4.md", machine.directory) if is_after else ["mysite.asgi:application"]
        machine.start(target, "--mode", mode, "--workers", "2")
        url = f"{machine.ws}/ws/chat/ann/"
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"{machine.ws}/ws/chat/nobody/")
        with connect(url, additional_headers=cookie) as ann, connect(url) as guest:
            says(ann, message="hi")
            for socket in (ann, guest):
                assert json.loads(socket.recv(SECONDS)) == {"name": "ann", "message": "hi"}
            if not is_after:
                assert get(machine.url + "/announce/ann?message=tea")[2] == b"said"
                for socket in (ann, guest):
                    assert json.loads(socket.recv(SECONDS)) == {"name": "the house", "message": "tea"}
        assert get(machine.url + "/admin/login/")[0] == 200
        machine.stop()


def test_a_user_without_django_is_a_clear_error(machine: Machine, tmp_path: Path) -> None:
    machine.directory = tmp_path
    source = "from asgictl import Application, path\ndef say(message):\n    message.reply(text=str(message.user))\n"
    (tmp_path / "app.py").write_text(source + "app = Application(websocket=[path('/ws', receive=say)])\n")
    machine.start("app:app", "--workers", "1")
    with connect(machine.ws + "/ws") as socket:
        socket.send("who am I?")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    said = "ConsumerError: message.session is Django's: it needs django.contrib.sessions"
    until(lambda: said in machine.log("worker-00"), "its log says why")


@pytest.fixture
def with_tasks(project: tuple[Machine, dict[str, str]]) -> Machine:
    """The project of docs/django.md; on Django before 6 with the backport, as the page has it."""
    machine, _ = project
    assert machine.directory
    written("django.md", machine.directory)
    if django.VERSION < (6,):
        if importlib.util.find_spec("django_tasks") is None:
            pytest.skip("NOT RUN: neither Django 6 nor django-tasks is installed")
        tasks, settings = machine.directory / "news" / "tasks.py", machine.directory / "mysite" / "settings.py"
        tasks.write_text(tasks.read_text().replace("from django.tasks", "from django_tasks"))
        settings.write_text(settings.read_text() + 'INSTALLED_APPS += ["django_tasks"]\n')
    return machine


def answer(url: str) -> tuple[int, bytes]:
    """Return status and body, 0 while nobody serves."""
    try:
        status, _, body = get(url)
    except OSError:
        return 0, b""
    return status, body


def count_words(machine: Machine) -> None:
    status, body = answer(machine.url + "/publish?text=one+two+three")
    assert status == 200, body
    published = f"{machine.url}/published/{json.loads(body)['id']}"
    until(lambda: answer(published)[1] == b'{"status": "SUCCESSFUL", "words": 3}', "the task has run")


@contextmanager
def runasgictl(machine: Machine, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in the foreground; what it prints stands in `log`."""
    command = [sys.executable, "manage.py", "runasgictl", str(machine.port), "--workers", "1", *arguments]
    with log.open("w") as printed:
        started = subprocess.Popen(
            command, cwd=machine.directory, env=machine.environment, stdout=printed, stderr=subprocess.STDOUT
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        started.wait(60)


@pytest.mark.parametrize("mode", MODES)
def test_runasgictl_serves_static_files_and_tasks_and_deploys_changes(with_tasks: Machine, mode: str) -> None:
    machine = with_tasks
    assert machine.directory
    views, log = machine.directory / "news" / "views.py", machine.directory / "printed"
    changed = views.read_text().replace('"words"', '"count"')

    def change() -> bool:
        """Write again until somebody watches, which begins a little after it serves."""
        views.write_text(changed)
        return "changed: news/views.py" in log.read_text()

    with runasgictl(machine, log, "--mode", mode) as process:
        static = machine.url + "/static/admin/css/base.css"
        until(lambda: answer(static)[0] == 200 or process.poll() is not None, "it serves", 60)
        count_words(machine)
        until(change, "the change is seen")
        found = f"{machine.url}/published/{json.loads(answer(machine.url + '/publish?text=x')[1])['id']}"
        until(lambda: b"count" in answer(found)[1], "it is deployed")
    assert process.returncode == 0
    assert "System check identified no issues" in log.read_text()
    assert " · mysite.wsgi:application · " in log.read_text(), "it says what it serves"


def test_the_project_with_its_file_of_settings_starts_and_is_deployed(with_tasks: Machine) -> None:
    machine = with_tasks
    assert machine.directory
    (settings,) = re.findall(r"```toml\n# asgictl.toml\n(.*?)```", (DOCS / "django.md").read_text(), re.DOTALL)
    (machine.directory / "asgictl.toml").write_text(settings)
    assert run(machine.directory, "manage.py", "check") == "System check identified no issues (0 silenced)."
    assert "mysite.wsgi:application" in machine.start()
    count_words(machine)
    assert machine.run("reload").returncode == 0
    count_words(machine)


def test_the_test_of_its_tasks_passes(with_tasks: Machine) -> None:
    assert with_tasks.directory
    (source,) = re.findall(r"```py\n# news/tests.py\n(.*?)```", (DOCS / "testing.md").read_text(), re.DOTALL)
    (with_tasks.directory / "news" / "tests.py").write_text(source)
    run(with_tasks.directory, "manage.py", "test", "news.tests")
