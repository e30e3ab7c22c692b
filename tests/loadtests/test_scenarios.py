"""Which scenarios suit which target, and with what load."""

import typing

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests.scenarios import BY_NAME, DEMO, SCENARIOS, choose


def names(*told: typing.Any) -> list[str]:
    return [scenario.name for scenario in choose(*told)]


def test_the_demo_has_all() -> None:
    assert names((), [DEMO], None, None, None, None) == [
        name for name in SCENARIOS if "django" not in name and name not in BY_NAME
    ]
    assert names(tuple(BY_NAME), [DEMO], None, None, None, None) == ["upgrade", "storm", "leak"]


def test_another_target_has_those_that_it_has_paths_for() -> None:
    assert names((), ["app:app"], None, None, None, None) == ["hello", "deploy", "crash"]
    assert names((), ["app:app"], None, "/ws", None, None) == ["hello", "websocket", "idle", "deploy", "crash"]
    hello, deploy, _ = choose((), ["app:app"], "/x", None, None, None)
    assert (hello.path, deploy.path, deploy.users, deploy.ws_path) == ("/x", "/x", ("Hello",), "")


@pytest.mark.parametrize("name", ["cpu", "broadcast", "websocket"])
def test_a_scenario_that_a_target_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ComparisonError, match="app:app can have hello, deploy, crash"):
        choose((name,), ["app:app"], None, None, None, None)


def test_users_and_rate_replace_the_scenarios_own() -> None:
    (hello,) = choose(("hello",), [DEMO], None, None, 7, 50.0)
    assert (hello.count, hello.rate, hello.metrics[0]) == (7, 50.0, "p99")
    (idle,) = choose(("idle",), [DEMO], None, None, None, 50.0)
    assert idle.metrics == ("kib",)


def test_more_sockets_come_back_as_often_and_a_leak_may_be_looked_for_in_fewer_events() -> None:
    storm, leak = choose(("storm", "leak"), [DEMO], None, None, 400, None, None, 2000)
    assert (storm.count, storm.rate) == (400, 2 * SCENARIOS["storm"].rate)
    assert (leak.events, leak.metrics) == (2000, ("memory",))


def test_a_path_replaces_only_the_plain_one() -> None:
    hello, cpu = choose(("hello", "cpu"), [DEMO], "/where", None, None, None)
    assert (hello.path, cpu.path) == ("/where", "/cpu?ms=5")


def test_what_the_demo_runs_while_processes_are_killed_is_written_down() -> None:
    crash, deploy = sorted(choose(("crash", "deploy"), [DEMO], None, None, None, None), key=lambda each: each.name)
    assert (crash.users, crash.path, crash.ws_path) == (("Noted", "NotedEcho"), "/note", "/ws/note")
    assert deploy.users == ("Hello", "Echo")
    assert choose(("crash",), [DEMO], "/where", None, None, None)[0].users == ("Hello", "Echo"), "it writes nothing"


def test_a_locustfile_stands_for_all() -> None:
    (own,) = choose((), ["app:app"], None, None, 5, None, "mine.py")
    assert (own.locustfile, own.users, own.count) == ("mine.py", (), 5)
    with pytest.raises(ComparisonError, match="leave --scenario out"):
        choose(("hello",), ["app:app"], None, None, 5, None, "mine.py")


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(ComparisonError, match="begin with /, as in /hello"):
        choose((), ["app:app"], "hello", None, None, None)


def test_the_django_site_has_its_own_and_is_deployed_with_its_rooms() -> None:
    targets = ["asgictl_app:app", "mysite.asgi:application", "mysite.wsgi:application"]
    *own, deploy, crash, noisy = sorted(
        choose((), targets, None, None, None, None), key=lambda each: bool(each.happenings)
    )
    assert [each.name for each in own] == ["django-view", "django-write", "django-socket", "django-mixed"]
    assert (noisy.slow_path, crash.users) == ("/hold/?ms=2000", ("Hello", "Room"))
    assert (deploy.path, deploy.ws_path, deploy.users) == ("/latest/", "/ws/chat/", ("Hello", "Room"))
    assert crash.users == deploy.users
    with pytest.raises(ComparisonError, match="can have hello, deploy, crash"):
        choose(("django-view",), ["app:app"], None, None, None, None)
