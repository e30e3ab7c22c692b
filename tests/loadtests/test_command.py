"""What compare is about to measure."""

import re
from pathlib import Path

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests.command import CompareConfig, sides


def config(also: str | None = None, interfaces: int = 1, threads: int | None = None) -> CompareConfig:
    return CompareConfig("a:b", None, (), None, None, 10, 3, None, None, Path(), also, None, interfaces, threads)


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
    ],
)
def test_a_third_side_is_the_users_own(also: str, name: str, command: str) -> None:
    third = sides(config(also), 2)[-1]
    assert (third.name, third.command) == (name, command)


@pytest.mark.parametrize("also", ["gunicorn a:b", "gunicorn 'a:b -b {bind}"])
def test_a_third_side_that_cannot_be_is_refused(also: str) -> None:
    with pytest.raises(ComparisonError, match="--also"):
        sides(config(also), 2)
