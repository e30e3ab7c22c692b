"""Sides of benchmarks: the applications of benchmarks.applications, under asgictl and under other servers."""

from collections.abc import Callable
from typing import TypeVar

from asgictl.loadtests.servers import Side

T = TypeVar("T")
U = TypeVar("U")

APPLICATIONS = "benchmarks.applications"


def in_turn(rounds: int, measure: Callable[[T], U], first: T, second: T) -> tuple[list[U], list[U]]:
    """Measure two things A B A B, since machines drift; return what was found of each."""
    found = [(measure(first), measure(second)) for _ in range(rounds)]
    return [one for one, _ in found], [other for _, other in found]


def split(target: str, load: str = "/", *, workers: int = 1, options: str = "") -> Side:
    name = f"split, {workers} worker{'s' if workers > 1 else ''}"
    return Side(name, f"asgictl start {APPLICATIONS}:{target} --workers {workers} --bind {{bind}} -d {options}", load)


def inprocess(target: str, load: str = "/") -> Side:
    command = f"asgictl start {APPLICATIONS}:{target} --mode inprocess --workers 1 --bind {{bind}} -d"
    return Side("asgictl in-process", command, load)


def uvicorn(target: str, load: str = "/") -> Side:
    options = "--host 127.0.0.1 --port {port} --log-level warning --no-access-log --ws websockets-sansio"
    return Side("uvicorn", f"uvicorn {APPLICATIONS}:{target} {options} --ws-per-message-deflate false", load)


def gthread(target: str, *, processes: int = 1) -> Side:
    name = f"gunicorn gthread, {processes} process{'es' if processes > 1 else ''}"
    options = "-k gthread --threads 4 --no-control-socket --log-level warning"
    return Side(name, f"gunicorn {APPLICATIONS}:{target} -b {{bind}} -w {processes} {options}")
