"""Runs every scenario on every side in turn, A B A B, since machines drift; a side is started anew for each run."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.servers import Server, Side, SideError, end, pin, serving
from asgictl.loadtests.usage import GENERATOR, Usage
from asgictl.loadtests.verdicts import Run, summarise

USERS_FILE = Path(__file__).with_name("users.py")
WARMUP_SECONDS = 1.0
OVERHEAD_SECONDS = 5.0  # of a run, beside its duration: starting, warming up, stopping
POLL_SECONDS = 0.2
IDLE_SECONDS = 4.0
EVENT_SECONDS = 10.0
EVENT_SHARE = 0.25  # of a run comes before its event
BEGIN_SECONDS = 60  # until every user has started
ENDING_SECONDS = 30  # for what is in flight when a run ends
SPAWN_RATE = 500
TAIL_LINES = 12
Tick = Callable[[float], None]


@dataclass(slots=True)
class Comparison:
    """What is compared, on which cores, and what has been found. A side that does not start is not tried again.

    facts: what each side consists of: {"processes": {role: how many}, "threads": ...}. failures: why a side is missing.
    complaints: what else went wrong.
    """

    sides: list[Side]
    scenarios: list[Scenario]
    rounds: int
    duration: float
    server_cores: list[int]
    load_cores: list[int]
    runs: list[Run] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    stopping: threading.Thread = field(default_factory=threading.Thread)

    def seconds(self, scenario: Scenario) -> float:
        """Return how long a run is measured: memory needs no long look, and a deploy has to come to its end."""
        if scenario.event:
            return max(self.duration, EVENT_SECONDS)
        return min(self.duration, IDLE_SECONDS) if scenario.metrics == ("kib",) else self.duration

    @property
    def estimate_seconds(self) -> float:
        each = (self.seconds(scenario) + OVERHEAD_SECONDS for scenario in self.scenarios)
        return len(self.sides) * self.rounds * sum(each)

    def run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        """Measure everything, or until `stopping`. tick: told the seconds of the estimate that have passed."""
        try:
            self._run(stopping, tick, began)
        finally:
            self.stopped()

    def _run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        done = 0.0
        for scenario in self.scenarios:
            for number in range(1, self.rounds + 1):
                for side in self.sides:
                    began(f"{scenario.name} · {side.name} · round {number} of {self.rounds}")
                    self._one(side, scenario, number, stopping, lambda passed, before=done: tick(before + passed))  # type: ignore[misc]
                    done += self.seconds(scenario) + OVERHEAD_SECONDS
                    tick(done)
                    if stopping.is_set() or len(self.failures) == len(self.sides):
                        return

    def _one(self, side: Side, scenario: Scenario, number: int, stopping: threading.Event, tick: Tick) -> None:
        try:
            if side.name in self.failures:
                raise NotServing(self.failures[side.name])
            run = measure(self, side, scenario, number, stopping, tick)
        except (SideError, OSError, subprocess.SubprocessError) as error:
            if isinstance(error, NotServing) and side.name not in self.facts:
                self.failures[side.name] = str(error)
            run = Run(side.name, scenario.name, number, error=str(error))
        if run:
            self.runs.append(run)

    def stop(self, server: ExitStack) -> None:
        """Let a server stop while the next one starts; it is waited for before that is measured."""
        self.stopped()
        self.stopping = threading.Thread(target=self._close, args=(server,))
        self.stopping.start()

    def _close(self, server: ExitStack) -> None:
        try:
            server.close()
        except (SideError, OSError, subprocess.SubprocessError) as error:  # what stops too slowly was measured well
            self.complaints.append(f"did not stop: {error}")

    def stopped(self) -> None:
        """Wait for what stops."""
        if self.stopping.ident:
            self.stopping.join()


class NotServing(SideError):
    """The side did not come as far as its first answer."""


def measure(
    comparison: Comparison, side: Side, scenario: Scenario, number: int, stopping: threading.Event, tick: Tick
) -> Run | None:
    """Start a side, load it, and stop it; None when `stopping` came first. Raises SideError."""
    side = replace(side, load=scenario.path if "Hello" in scenario.users or "Mixed" in scenario.users else "ws:")
    started, seconds = time.monotonic(), comparison.seconds(scenario)
    with ExitStack() as stack:
        loads: list[Load] = []

        def prepare(server: Server) -> None:
            loads.append(stack.enter_context(loading(server, scenario, seconds, comparison.load_cores)))

        try:
            server = stack.enter_context(serving(side, prepare))
        except (SideError, OSError, subprocess.SubprocessError) as error:
            raise NotServing(str(error)) from error
        usage = Usage(server.runtime, "controller" if side.detached else "server")
        usage.sample()
        servers = [pid for role, pids in usage.pids.items() if role != GENERATOR for pid in pids]
        pin(servers, comparison.server_cores)  # only now: they start sooner on all
        if side.name not in comparison.facts:
            comparison.facts[side.name] = facts(server, side, usage)
        comparison.stopped()
        (load,) = loads
        load.begin()
        event = Event(server, scenario.event, usage)
        for _ in _polls(load, event, seconds):
            usage.sample()
            tick(min(time.monotonic() - started, seconds + OVERHEAD_SECONDS))
            if stopping.is_set():
                return None
        event.join(load.began() + seconds)
        record = load.record()
        comparison.stop(stack.pop_all())
        return summarise(
            scenario, side.name, number, record, usage, event.at and event.at - record["begin"], event.note
        )


def _polls(load: "Load", event: "Event", seconds: float) -> Iterator[None]:
    """Yield now and then until the load has ended, and have the event happen meanwhile. Raises SideError."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while load.process.poll() is None:
        time.sleep(POLL_SECONDS)
        yield
        if not event.due and load.began():
            event.due = load.began() + seconds * EVENT_SHARE
            deadline = time.monotonic() + seconds + ENDING_SECONDS
        if event.due and time.time() >= event.due:
            event.happen()
        if time.monotonic() > deadline:
            raise SideError("the load generator did not end in time")
    yield


def facts(server: Server, side: Side, usage: Usage) -> dict[str, Any]:
    """Return what a side consists of, and how it is set."""
    processes = {role: len(pids) for role, pids in usage.pids.items() if role != GENERATOR}
    found: dict[str, Any] = {"processes": processes}
    if side.detached:
        keys = ("mode", "target", "workers", "threads", "interfaces", "options", "redis")
        found |= {key: value for key, value in server.status().items() if key in keys}
    return found


@dataclass(frozen=True, slots=True)
class Load:
    """A load generator that runs, and begins when it is told to."""

    process: subprocess.Popen[bytes]
    file: Path

    def begin(self) -> None:
        """The server serves."""
        assert self.process.stdin  # noqa: S101 - loading() made it
        self.process.stdin.close()

    def began(self) -> float:
        """Return when its measuring began, 0 before."""
        try:
            return float(self.file.with_suffix(".begun").read_text())
        except OSError:
            return 0

    def record(self) -> dict[str, Any]:
        """Return what it has written down. Raises SideError with its last lines when it has measured nothing."""
        try:
            record: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            record = {"begin": None}
        if record["begin"] is None:
            said = self.file.with_suffix(".log").read_text(errors="replace").splitlines()[-TAIL_LINES:]
            raise SideError("\n".join(["the load generator ended before it had measured:", *said]))
        return record


@contextmanager
def loading(server: Server, scenario: Scenario, seconds: float, cores: list[int]) -> Iterator[Load]:
    """Run locust, in a process of its own, which is ended on leaving."""
    with tempfile.TemporaryDirectory(prefix="al-", dir="/tmp") as folder, ExitStack() as stack:
        file = Path(folder) / "record"
        command = [
            *(sys.executable, "-P", "-m", "asgictl.loadtests.recorder"),
            *(str(file), str(WARMUP_SECONDS), str(seconds)),
            *("-f", scenario.locustfile or str(USERS_FILE), *scenario.users),
            *("--headless", "--only-summary", "--host", server.url),
            *("--users", str(scenario.count), "--spawn-rate", str(min(scenario.count, SPAWN_RATE))),
        ]
        environment = os.environ | {
            "XDG_RUNTIME_DIR": server.runtime,
            "SUPERVISOR_GROUP_NAME": GENERATOR,
            "ASGICTL_LOAD_PATH": scenario.path,
            "ASGICTL_LOAD_WS_PATH": scenario.ws_path or "/",
            "ASGICTL_LOAD_RATE": str(scenario.rate),
        }
        with file.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.PIPE, start_new_session=True
            )
        stack.enter_context(process)
        stack.callback(end, process, signal.SIGKILL)
        pin([process.pid], cores)  # before it has other threads
        yield Load(process, file)


class Event:
    """What is done to a server in mid-run, in a thread beside the sampling. at: when; note: what of it failed."""

    def __init__(self, server: Server, kind: str, usage: Usage) -> None:
        self._server, self._kind, self._usage = server, kind, usage
        self._thread: threading.Thread | None = None
        self._ended = self.due = 0.0
        self.at: float | None = None
        self.note = ""

    def happen(self) -> None:
        """Begin it, once."""
        if self._kind and self._thread is None:
            self.at = time.time()
            self._thread = threading.Thread(target=self._do)
            self._thread.start()

    def join(self, end: float) -> None:
        """Wait for it; what ended after `end` was not seen to its end."""
        if self._thread is not None:
            self._thread.join()
            if self._ended > end:
                self.note = self.note or f"the {self._kind} took longer than the run: use a longer --duration"

    def _do(self) -> None:
        try:
            if self._kind == "reload":
                reload(self._server)
            else:
                kill_one(self._usage)
        except (SideError, OSError, subprocess.SubprocessError) as error:
            self.note = f"the {self._kind} failed: {error}"
        self._ended = time.time()


def reload(server: Server) -> None:
    """Deploy the application again, as each server does it. Raises SideError."""
    if server.leader is not None:
        os.kill(server.leader, signal.SIGHUP)  # as gunicorn understands it
    else:
        server.run("asgictl", "reload")


def kill_one(usage: Usage) -> None:
    """Kill a process that runs the application: the youngest, which no other depends on."""
    pids = usage.pids.get("worker") or usage.pids.get("server") or []
    if not pids:
        raise SideError("no process runs the application")
    os.kill(max(pids), signal.SIGKILL)
