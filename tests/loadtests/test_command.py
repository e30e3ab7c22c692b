"""What compare is about to measure."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests.command import PLAIN_ASGI, CompareConfig, database, sides


def config(also: str | None = None, interfaces: int = 1, **more: Any) -> CompareConfig:
    told: dict[str, Any] = dict.fromkeys(field.name for field in fields(CompareConfig))
    told |= {"target": "a:b", "interfaces": interfaces, "also": also, "again": False, "out": Path()}
    return CompareConfig(**told | more)


def number(command: str, option: str) -> int:
    found = re.search(rf"--{option} (\d+)", command)
    assert found, command
    return int(found[1])


@pytest.mark.parametrize(("interfaces", "workers"), [(1, 2), (2, 5)])
def test_both_modes_have_as_many_processes_and_threads_in_all(interfaces: int, workers: int) -> None:
    split, inprocess = (side.command for side in sides(config(interfaces=interfaces), workers))
    assert (number(split, "workers"), number(split, "interfaces")) == (workers, interfaces)
    assert number(inprocess, "workers") == workers + interfaces
    in_all = [number(each, "workers") * number(each, "threads") for each in (split, inprocess)]
    assert in_all[0] == in_all[1]


def test_threads_that_are_asked_for_are_those_of_each_process() -> None:
    assert [number(side.command, "threads") for side in sides(config(threads=7), 2)] == [7, 7]


@pytest.mark.parametrize(
    ("also", "name", "command"),
    [
        ("/usr/bin/gunicorn a:b -b {bind}", "gunicorn", "/usr/bin/gunicorn a:b -b {bind}"),
        ("asgictl start a:b --bind {bind}", "asgictl", "asgictl start a:b --bind {bind} -d"),
        ("today=gunicorn a:b -b {bind}", "today", "gunicorn a:b -b {bind}"),
        ("gunicorn a:b --env X=1 -b {bind}", "gunicorn", "gunicorn a:b --env X=1 -b {bind}"),
    ],
)
def test_a_third_side_is_the_users_own(also: str, name: str, command: str) -> None:
    third = sides(config(also), 2)[-1]
    assert (third.name, third.command) == (name, command)


@pytest.mark.parametrize("also", ["gunicorn a:b", "gunicorn 'a:b -b {bind}"])
def test_a_third_side_that_cannot_be_is_refused(also: str) -> None:
    with pytest.raises(ComparisonError, match="--also"):
        sides(config(also), 2)


def test_the_way_to_deploy_a_third_side_is_its_own() -> None:
    third = sides(config("gunicorn a:b -b {bind}", also_reload="kill -USR2 {pid}"), 2)[-1]
    assert third.reload == "kill -USR2 {pid}"
    with pytest.raises(ComparisonError, match="for the side of --also"):
        sides(config(also_reload="kill -USR2 {pid}"), 2)


def test_of_the_example_it_is_said_what_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGDATABASE", raising=False)
    example = config(split="asgictl_app:app", inprocess="mysite.asgi:application")
    assert (database(config()), database(example).split(",")[0]) == ("", "SQLite")
    monkeypatch.setenv("PGDATABASE", "site")
    assert database(example) == "PostgreSQL"


def test_split_can_be_compared_with_itself() -> None:
    split, _, again = sides(config(again=True), 2)
    assert (again.name, again.command) == ("split again", split.command)


def test_each_side_may_have_a_target_of_its_own_and_a_control() -> None:
    own: dict[str, Any] = {"split": "s:app", "inprocess": "i:app", "control": "w:app"}
    split, inprocess, control = sides(config(**own), 2)
    assert [side.name for side in (split, inprocess, control)] == ["split", "in-process", "in-process WSGI"]
    assert [side.command.split()[2] for side in (split, inprocess, control)] == ["s:app", "i:app", "w:app"]
    assert "--mode inprocess" in control.command


@pytest.mark.parametrize("target", ["asgictl.demo:app", "mysite.asgi:application"])
def test_beside_our_way_to_deploy_stands_the_best_known(target: str) -> None:
    *_, best = sides(config(inprocess=target), 2)
    assert (best.name, best.part, number(best.command.replace("-w", "--workers"), "workers")) == (
        "gunicorn asgi", "deploy", 3,
    )  # fmt: skip
    module, _, attribute = PLAIN_ASGI[target].partition(":")
    assert f"{module}:{attribute}" in best.command
