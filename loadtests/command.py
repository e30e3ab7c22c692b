"""asgictl compare: checks what can be checked at the start, measures with a progress bar, and writes the reports.

What it needs of the extra `compare` is imported once that is known to be there, and locust never in this process:
gevent changes the standard library of the process that imports it.
"""

import importlib.util
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from asgictl.errors import ComparisonError
from asgictl.loadtests.scenarios import choose
from asgictl.loadtests.servers import Side, search_path

NEEDED = ("locust", "matplotlib", "websocket")
SPARE_DESCRIPTORS = 256  # beside the sockets of users
LOCUSTFILE_SECONDS = 60
TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """What `asgictl compare` was told; None where the scenario or the mode decides."""

    target: str
    locustfile: str | None
    scenarios: tuple[str, ...]
    users: int | None
    rate: float | None
    duration: float
    rounds: int
    path: str | None
    ws_path: str | None
    out: Path
    also: str | None
    workers: int | None
    interfaces: int
    threads: int | None


def compare(config: CompareConfig, stopping: threading.Event) -> None:
    """Measure, print the table, write report.html and report.json. Raises ComparisonError.

    stopping: set to end early; what has been measured by then is reported.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ComparisonError(f"asgictl compare needs {', '.join(missing)}: pip install 'asgictl[compare]'")
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from asgictl.loadtests.comparison import Comparison
    from asgictl.loadtests.page import page
    from asgictl.loadtests.report import Report

    chosen = choose(
        config.scenarios, config.target, config.path, config.ws_path, config.users, config.rate, config.locustfile
    )
    _check_descriptors(max(scenario.count for scenario in chosen))
    _check_folder(config.out)
    if config.locustfile:
        _check_locustfile(config.locustfile)
    servers, load = share_cores()
    workers = config.workers or max(2, len(servers))
    compared = sides(config, workers)
    _check_programs(compared)
    comparison = Comparison(compared, chosen, config.rounds, config.duration, servers, load)
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = comparison.estimate_seconds
        task = progress.add_task("", total=total, left=timedelta(seconds=round(total)))

        def tick(seconds: float) -> None:
            progress.update(task, completed=seconds, left=timedelta(seconds=round(total - seconds)))

        def began(what: str) -> None:
            progress.update(task, description=what)
            if progress.disable:
                console.print(what, highlight=False)

        comparison.run(stopping, tick, began)
    if comparison.runs and all(run.error for run in comparison.runs):
        told = "\n".join({f"{run.side}: {run.error}": None for run in comparison.runs})
        raise ComparisonError(f"nothing could be measured\n{told}")
    settings = {"target": config.target, "workers": workers, "interfaces": config.interfaces, "threads": config.threads}
    report = Report(comparison, settings, interrupted=stopping.is_set())
    report.show(console)
    _write({config.out / "report.html": page(report), config.out / "report.json": report.json()})
    console.print(f"{config.out / 'report.html'} · {config.out / 'report.json'}", highlight=False, soft_wrap=True)


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.write_text(text)
        except OSError as error:
            raise ComparisonError(f"cannot write to {path.parent}: {error.strerror}") from error


def sides(config: CompareConfig, workers: int) -> list[Side]:
    """Give in-process as many processes as split has interfaces and workers, and both as many threads in all."""
    start = f"asgictl start {shlex.quote(config.target)} --bind {{bind}} -d"
    processes = config.interfaces + workers
    split, inprocess = f"--interfaces {config.interfaces} --workers {workers}", f"--workers {processes}"
    sides = [
        Side("split", f"{start} --mode split {split} --threads {config.threads or processes}"),
        Side("in-process", f"{start} --mode inprocess {inprocess} --threads {config.threads or workers}"),
    ]
    if config.also is not None:
        if "{bind}" not in config.also and "{port}" not in config.also:
            raise ComparisonError("--also needs {bind} or {port} where the address to listen on stands")
        try:
            words = shlex.split(config.also)
        except ValueError as error:
            raise ComparisonError(f"--also: {error}") from error
        detach = " -d" if words[0] == "asgictl" and "-d" not in words else ""
        sides.append(Side(Path(words[0]).name, config.also + detach))
    return sides


def share_cores() -> tuple[list[int], list[int]]:
    """Return the servers' cores and the load's: the last is the load's own, where there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (cores[:-1], cores[-1:]) if len(cores) > 1 else (cores, cores)


def _check_descriptors(sockets: int) -> None:
    """Raise this process's limit, which the others inherit, to what is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sockets + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ComparisonError(
            f"{sockets} users need {needed} file descriptors, and {hard} is the limit; ulimit -Hn, --users"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_programs(sides: list[Side]) -> None:
    for side in sides:
        program = shlex.split(side.command)[0]
        if not side.detached and not shutil.which(program, path=search_path()):
            raise ComparisonError(f"--also: there is no program {program}")


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ComparisonError(f"--out {folder} cannot be written to: {error.strerror}") from error


def _check_locustfile(locustfile: str) -> None:
    """Have locust read it, in a process of its own."""
    if not Path(locustfile).is_file():
        raise ComparisonError(f"-f {locustfile}: there is no such file")
    command = [sys.executable, "-P", "-m", "locust", "-f", locustfile, "--list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOCUSTFILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise ComparisonError(f"-f {locustfile}: it was not read within {LOCUSTFILE_SECONDS} s") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    theirs = max((number for number, line in enumerate(said) if locustfile in line), default=-TAIL_LINES)
    if done.returncode:
        raise ComparisonError(f"-f {locustfile} is no locustfile that works:\n" + "\n".join(said[theirs:]))
    if len(done.stdout.strip().splitlines()) < 2:  # a title, and the names below it
        raise ComparisonError(f"-f {locustfile} has no class of users")
