"""Which scenarios suit which target, and with what load."""

import typing

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests.scenarios import DEMO, SCENARIOS, choose


def names(*told: typing.Any) -> list[str]:
    return [scenario.name for scenario in choose(*told)]


def test_the_demo_has_all() -> None:
    assert names((), DEMO, None, None, None, None) == list(SCENARIOS)


def test_another_target_has_those_that_it_has_paths_for() -> None:
    assert names((), "app:app", None, None, None, None) == ["hello", "deploy", "crash"]
    assert names((), "app:app", None, "/ws", None, None) == ["hello", "websocket", "idle", "deploy", "crash"]
    hello, deploy, _ = choose((), "app:app", "/x", None, None, None)
    assert (hello.path, deploy.path, deploy.users, deploy.ws_path) == ("/x", "/x", ("Hello",), "")


@pytest.mark.parametrize("name", ["cpu", "broadcast", "websocket"])
def test_a_scenario_that_a_target_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ComparisonError, match="app:app can have hello, deploy, crash"):
        choose((name,), "app:app", None, None, None, None)


def test_users_and_rate_replace_the_scenarios_own() -> None:
    (hello,) = choose(("hello",), DEMO, None, None, 7, 50.0)
    assert (hello.count, hello.rate, hello.metrics[0]) == (7, 50.0, "p99")
    (idle,) = choose(("idle",), DEMO, None, None, None, 50.0)
    assert idle.metrics == ("kib",)


def test_a_path_replaces_only_the_plain_one() -> None:
    hello, cpu = choose(("hello", "cpu"), DEMO, "/where", None, None, None)
    assert (hello.path, cpu.path) == ("/where", "/cpu?ms=5")


def test_a_locustfile_stands_for_all() -> None:
    (own,) = choose((), "app:app", None, None, 5, None, "mine.py")
    assert (own.locustfile, own.users, own.count) == ("mine.py", (), 5)
