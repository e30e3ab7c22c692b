"""asgictl compare: checks what can be checked at the start, measures with a progress bar, and writes the reports.

What it needs of the extra `compare` is imported once that is known to be there, and locust never in this process:
gevent changes the standard library of the process that imports it.
"""

import importlib.util
import os
import re
import resource
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from asgictl.errors import ComparisonError
from asgictl.loadtests.scenarios import DEMO, DJANGO, SOCKETS, Scenario, choose
from asgictl.loadtests.servers import Side, SideError, search_path

if TYPE_CHECKING:
    from rich.console import Console

    from asgictl.loadtests.comparison import Comparison
    from asgictl.loadtests.curve import Curve
    from asgictl.loadtests.sweep import Sweep

NEEDED = ("locust", "matplotlib", "rich", "websocket")
SPARE_DESCRIPTORS = 256  # beside the sockets of users
LOCUSTFILE_SECONDS = 60
TAIL_LINES = 12
SEEDS = 1_000_000
SPLIT_IS = "interfaces hold the connections, workers run the application, Redis carries events between them"
INPROCESS = (  # name, part, about; the control shows what Django on ASGI costs
    ("in-process", "all", "each server process holds connections and runs the application"),
    (
        "in-process WSGI",
        "timed",
        "in-process, with the TARGET of split: what is between these two is due to the architecture alone, and what is "
        "between it and in-process to how the application is written; not where something is done to servers",
    ),
)
# What other servers run of what in-process runs: beside our way to deploy stands the best that they know.
PLAIN_ASGI = {DEMO: "asgictl.demo:plain", "mysite.asgi:application": "mysite.asgi:application"}
BEST_DEPLOY_IS = (
    "the best way that is known to deploy the TARGET of in-process without asgictl; it takes part there only"
)
BEST_DEPLOY = "gunicorn {target} -b {{bind}} -w {processes} -k asgi --graceful-timeout 2 --no-control-socket"
# What a locustfile holds: the name of each class of users, and whether it keeps to a rate.
USERS_OF = """
import locust, sys
from locust.util.load_locustfile import load_locustfile
users = next(part for part in load_locustfile(sys.argv[1]) if isinstance(part, dict))  # first, or behind a docstring
for name, user in users.items():
    print(name, any(base.__name__ == "FixedRate" for base in user.__mro__))
"""


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """What `asgictl compare` was told; None where the scenario or the mode decides."""

    target: str
    split: str | None
    inprocess: str | None
    control: str | None
    locustfile: str | None
    scenarios: tuple[str, ...]
    users: int | None
    rate: float | None
    events: int
    duration: float
    rounds: int
    minutes: float
    curve: str | None
    sweep: bool
    p99_ms: float
    path: str | None
    ws_path: str | None
    out: Path
    also: str | None
    also_reload: str | None
    again: bool
    workers: int | None
    interfaces: int
    threads: int | None

    @property
    def targets(self) -> tuple[str, ...]:
        """What each mode runs, and the control."""
        return (self.split or self.target, self.inprocess or self.target, *([self.control] if self.control else []))


def compare(config: CompareConfig, stopping: threading.Event) -> None:
    """Measure, print the table, write report.html and report.json. Raises ComparisonError.

    stopping: set to end early; what has been measured by then is reported.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ComparisonError(f"asgictl compare needs {', '.join(missing)}: pip install 'asgictl[compare]'")
    from rich.console import Console

    from asgictl.loadtests.curve import Curve
    from asgictl.loadtests.page import page
    from asgictl.loadtests.provenance import hash_of
    from asgictl.loadtests.report import Report
    from asgictl.loadtests.sweep import Sweep

    comparison = _prepared(config)
    curve = Curve(comparison, comparison.scenarios[0], config.p99_ms / 1e3) if config.curve else None
    if len(set(config.targets)) > 1:
        _check_alike(comparison.sides[: len(config.targets)], comparison.scenarios)
    console = Console()
    _measure(curve or (Sweep(comparison) if config.sweep else comparison), stopping, console)
    if comparison.runs and all(run.error for run in comparison.runs):
        told = "\n".join({f"{run.side}: {run.error}": None for run in comparison.runs})
        raise ComparisonError(f"nothing could be measured\n{told}")
    settings = asdict(config) | {"out": str(config.out), "locustfile_sha256": hash_of(config.locustfile or "")}
    settings["database"] = database(config)
    report = Report(comparison, settings, interrupted=stopping.is_set())
    if curve:
        console.print(curve.words(), highlight=False, markup=False, style="bold")
    else:
        report.show(console)
    _write({config.out / "report.html": page(report, curve), config.out / "report.json": report.json(curve)})
    console.print(f"{config.out / 'report.html'} · {config.out / 'report.json'}", highlight=False, soft_wrap=True)


def _prepared(config: CompareConfig) -> "Comparison":
    """Check what can be checked at the start, and return what is to be measured."""
    from asgictl.loadtests.comparison import PARTS, Comparison

    names = (config.curve,) if config.curve else config.scenarios
    told = config.path, config.ws_path, config.users, config.rate, config.locustfile
    chosen = choose(names, config.targets, *told, config.events)
    _check_descriptors(SOCKETS if config.curve else max(scenario.count for scenario in chosen))
    _check_folder(config.out)
    if config.locustfile:
        _check_locustfile(config.locustfile, config.rate)
    servers, load = share_cores()
    compared = sides(config, config.workers or max(2, len(servers)))
    compared = [side for side in compared if any(map(PARTS[side.part], chosen))]
    _check_programs(compared)
    seconds, seed = config.minutes * 60, secrets.randbelow(SEEDS)
    return Comparison(compared, chosen, config.rounds, config.duration, servers, load, seconds, seed)


def _measure(measured: "Comparison | Curve | Sweep", stopping: threading.Event, console: "Console") -> None:
    """Run it, with a progress bar on a terminal and a line for each run elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]} left")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = measured.estimate_seconds
        task = progress.add_task("", total=total, left=timedelta(seconds=round(total)))

        def tick(seconds: float) -> None:
            progress.update(task, completed=seconds, left=timedelta(seconds=max(0, round(total - seconds))))

        def began(what: str) -> None:
            progress.update(task, description=what)
            if progress.disable:
                console.print(what, highlight=False)

        measured.run(stopping, tick, began)


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.write_text(text)
        except OSError as error:
            raise ComparisonError(f"cannot write to {path.parent}: {error.strerror}") from error


def sides(config: CompareConfig, workers: int) -> list[Side]:
    """Give in-process as many processes as split has interfaces and workers, and both as many threads in all."""
    targets = [f"asgictl start {shlex.quote(target)} --bind {{bind}} -d" for target in config.targets]
    processes = config.interfaces + workers
    split, inprocess = f"--interfaces {config.interfaces} --workers {workers}", f"--workers {processes}"
    sides = [
        Side("split", f"{targets[0]} --mode split {split} --threads {config.threads or processes}", about=SPLIT_IS),
        *(
            Side(
                name,
                f"{target} --mode inprocess {inprocess} --threads {config.threads or workers}",
                part=part,
                about=about,
            )
            for (name, part, about), target in zip(INPROCESS, targets[1:], strict=False)
        ),
    ]
    if config.again:
        sides.append(replace(sides[0], name="split again", about="the same once more: what the machine alone does"))
    if config.also is not None:
        sides.append(_third(config.also, config.also_reload or ""))
    elif config.also_reload:
        raise ComparisonError("--also-reload is for the side of --also")
    if plain := PLAIN_ASGI.get(config.targets[1]):
        command = BEST_DEPLOY.format(target=plain, processes=processes)
        sides.append(Side("gunicorn asgi", command, part="deploy", about=BEST_DEPLOY_IS))
    return sides


def _third(also: str, reload: str) -> Side:
    """Return the side of --also: a command, or NAME=COMMAND."""
    named = re.match(r"([A-Za-z][\w.-]*)=", also)
    command = also[named.end() :] if named else also
    if "{bind}" not in command and "{port}" not in command:
        raise ComparisonError("--also needs {bind} or {port} where the address to listen on stands")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ComparisonError(f"--also: {error}") from error
    detach = " -d" if words[0] == "asgictl" and "-d" not in words else ""
    return Side(named[1] if named else Path(words[0]).name, command + detach, reload=reload)


def database(config: CompareConfig) -> str:
    """Return in what the site keeps its rows; "" where nobody here knows."""
    if not set(config.targets) <= DJANGO:
        return ""
    return "PostgreSQL" if os.environ.get("PGDATABASE") else "SQLite, which takes one writer at a time"


def share_cores() -> tuple[list[int], list[int]]:
    """Return the servers' cores and the load's: the last is the load's own, where there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (cores[:-1], cores[-1:]) if len(cores) > 1 else (cores, cores)


def _check_alike(sides: list[Side], scenarios: list[Scenario]) -> None:
    """Different targets have to be forms of one site."""
    from asgictl.loadtests import alike

    try:
        alike.check(sides, scenarios)
    except SideError as error:
        raise ComparisonError(str(error)) from error


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


def _check_locustfile(locustfile: str, rate: float | None) -> None:
    """Have locust read it, in a process of its own. With a rate its users have to be such as keep to one."""
    if not Path(locustfile).is_file():
        raise ComparisonError(f"-f {locustfile}: there is no such file")
    command = [sys.executable, "-P", "-c", USERS_OF, locustfile]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOCUSTFILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise ComparisonError(f"-f {locustfile}: it was not read within {LOCUSTFILE_SECONDS} s") from None
    said = (done.stderr or done.stdout).strip().splitlines()
    theirs = max((number for number, line in enumerate(said) if locustfile in line), default=-TAIL_LINES)
    if done.returncode:
        raise ComparisonError(f"-f {locustfile} does not work:\n" + "\n".join(said[theirs:]))
    keeps_to_rate = dict(line.split() for line in done.stdout.splitlines())
    if not keeps_to_rate:
        raise ComparisonError(f"-f {locustfile} has no class of users")
    if plain := [name for name, keeps in keeps_to_rate.items() if rate and keeps == "False"]:
        raise ComparisonError(
            f"--rate is for users that mix in FixedRate of asgictl.loadtests.users; {plain[0]} does not"
        )
