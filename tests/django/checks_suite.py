"""System checks, runasgictl's target, and what it serves; in a process of its own (test_checks.py)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.staticfiles", "asgictl.django"],
    STATIC_URL="/static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    WSGI_APPLICATION="mysite.wsgi.application",
    ROOT_URLCONF=__name__,
)
django.setup()

from django.apps import apps  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.core.management.base import CommandError  # noqa: E402
from django.db import OperationalError  # noqa: E402
from django.test import override_settings  # noqa: E402

from asgictl.app.application import Application, declared_mounts  # noqa: E402
from asgictl.cli.options import CORES  # noqa: E402
from asgictl.cli.start import default_threads  # noqa: E402
from asgictl.django import DEVELOPMENT, checks  # noqa: E402
from asgictl.django.management.commands import runasgictl  # noqa: E402

LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
SHARED = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://localhost"}
urlpatterns: list[Any] = []


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASGICTL_WORKERS", "2")
    return tmp_path


def found() -> list[str]:
    return [each.id for each in run_checks() if each.id.startswith("asgictl")]


def test_a_new_project_is_told_nothing() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"LOGGING": {"version": 1}}, ["asgictl.W001"]),
        ({"LOGGING": {"version": 1, "disable_existing_loggers": False}}, []),
        ({"CACHES": {"default": SHARED, "mine": LOCAL}}, ["asgictl.W002"]),
        ({"CACHES": {"default": SHARED}}, []),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, ["asgictl.W002"]),
        ({"CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}}, ["asgictl.W003"]),
        ({"CHANNEL_LAYERS": {"default": {"BACKEND": "asgictl.layers.RedisChannelLayer"}}}, []),
    ],
)
def test_what_hurts_with_several_workers(changed: dict[str, Any], told: list[str]) -> None:
    with override_settings(**changed):
        assert found() == told


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        (None, ["asgictl.W005"]),
        ([("localhost", 6379)], ["asgictl.W005"]),
        (["redis://localhost"], ["asgictl.W005"]),
        (["redis://localhost?socket_timeout=5"], ["asgictl.W005"]),
        (["redis://localhost?socket_timeout=6"], []),
        ([{"address": "redis://localhost"}], ["asgictl.W005"]),
        ([{"address": "redis://localhost", "socket_timeout": None}], []),
        ([{"host": "localhost", "port": 6379, "socket_timeout": 60}], []),
        ([{"sentinels": [("localhost", 26379)], "master_name": "main", "socket_timeout": 1}], ["asgictl.W005"]),
        ([{"address": "redis://one", "socket_timeout": None}, "redis://two"], ["asgictl.W005"]),
    ],
)
def test_a_layer_whose_blocking_read_times_out(
    hosts: list[Any] | None, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGICTL_WORKERS", "1")
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts} if hosts else {}}
    with override_settings(CHANNEL_LAYERS={"default": layer}):
        assert found() == told
    with override_settings(CHANNEL_LAYERS={"default": layer | {"BACKEND": "channels_redis.pubsub.Other"}}):
        assert found() == []


def test_one_worker_may_keep_what_it_likes_in_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGICTL_WORKERS", "1")
    with override_settings(CACHES={"default": LOCAL}):
        assert found() == []


def test_workers_are_those_of_the_file_and_as_many_as_there_may_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASGICTL_WORKERS")
    assert checks.most(checks.planned()["workers"]) == CORES
    (here / "asgictl.toml").write_text('workers = "1..3"')
    with override_settings(CACHES={"default": LOCAL}):
        assert found() == ["asgictl.W002"]
    (here / "asgictl.toml").write_text("workers = 0")
    assert found() == ["asgictl.E002"]
    (here / "asgictl.toml").write_text("wrong = 1")
    assert found() == ["asgictl.E002"]
    with pytest.raises(CommandError, match=r"asgictl\.toml"):
        runasgictl.target()


class Connection:
    """A database's: takes so many connections, or none now."""

    def __init__(self, vendor: str, offered: int) -> None:
        self.vendor = vendor
        self._offered = offered

    def cursor(self) -> "Connection":
        if not self._offered:
            raise OperationalError("too many connections")
        return self

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, _query: str) -> None:
        pass

    def fetchone(self) -> tuple[str]:
        return (str(self._offered),)


def test_a_database_takes_the_connections_of_old_workers_beside_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: dict[str, Connection] = {
        "enough": Connection("postgresql", 12),
        "few": Connection("mysql", 11),
        "away": Connection("postgresql", 0),
        "file": Connection("sqlite", 1),
    }
    monkeypatch.setattr(checks, "connections", connections)
    monkeypatch.setenv("ASGICTL_THREADS", "3")
    (warning,) = checks.check_connections(databases=list(connections))
    assert warning.id == "asgictl.W004"
    assert "'few' takes 11 connections, and a deploy may need 12" in warning.msg
    monkeypatch.delenv("ASGICTL_THREADS")
    assert list(checks.check_connections(databases=list(connections))) == []
    monkeypatch.setenv("ASGICTL_MODE", "inprocess")
    (_, warning) = checks.check_connections(databases=["enough", "few"])
    assert f"need {4 * default_threads('inprocess')}" in warning.msg
    assert list(checks.check_connections()) == [], "databases are asked where that is asked for"


def test_the_target_is_asgictls_or_djangos(here: Path) -> None:
    assert runasgictl.target() == "mysite.wsgi:application"
    with override_settings(ASGI_APPLICATION="mysite.asgi.application"):
        assert runasgictl.target() == "mysite.asgi:application"
    with override_settings(WSGI_APPLICATION=None), pytest.raises(CommandError, match="target"):
        runasgictl.target()
    (here / "asgictl.toml").write_text('target = "mysite.sockets:app"')
    assert runasgictl.target() == "mysite.sockets:app"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], ["--reload"]),
        (["8080"], ["--bind", "127.0.0.1:8080", "--reload"]),
        (["0:8080", "--mode=inprocess"], ["--bind", "0.0.0.0:8080", "--mode", "inprocess", "--reload"]),
        (["[::1]:1", "--workers=2", "--noreload"], ["--bind", "[::1]:1", "--workers", "2"]),
    ],
)
def test_the_command_becomes_asgictl_start(
    arguments: list[str], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setenv(DEVELOPMENT, "")
    monkeypatch.setattr(os, "execv", lambda _path, command: started.append(command))
    with override_settings(DEBUG=True):
        runasgictl.Command().run_from_argv(["manage.py", "runasgictl", *arguments])
    ((_, *command),) = started
    assert command[:4] == ["-m", "asgictl", "start", "mysite.wsgi:application"]
    assert command[4:] == ["--access-log", *options]
    assert os.environ[DEVELOPMENT]


def test_it_demands_what_runserver_demands() -> None:
    with override_settings(DEBUG=False, ALLOWED_HOSTS=[]), pytest.raises(CommandError, match="ALLOWED_HOSTS"):
        runasgictl.Command().handle(addrport=None, mode=None, workers=None, noreload=True)


def site(_environ: Any, _start_response: Any) -> list[bytes]:
    return []


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An app that is made ready under runasgictl adds nothing to the next test's Applications."""
    monkeypatch.setenv(DEVELOPMENT, "1")
    yield
    declared_mounts.clear()


def http(**changed: Any) -> Application:
    """Return the Application of a project under runasgictl."""
    with override_settings(**changed):
        declared_mounts.clear()
        apps.get_app_config("asgictl").ready()
        return Application(http=site)


@pytest.mark.usefixtures("prepared")
def test_static_files_are_served_beside_the_application_while_debug_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http(DEBUG=False).http == {"/": site}
    application = http(DEBUG=True)
    assert list(application.http) == ["/static/", "/"]
    assert application.mount("/statically") is site
    assert application.mount("/static/x.css") is not site
    assert list(Application(http={"/static/": site, "/": site}).http.values()) == [site, site], (
        "the project's comes first"
    )
    for elsewhere in ("https://cdn.example/static/", None):
        assert list(http(DEBUG=True, STATIC_URL=elsewhere).http) == ["/"]
    monkeypatch.delenv(DEVELOPMENT)
    assert list(http(DEBUG=True).http) == ["/"], "asgictl start serves no static files"
