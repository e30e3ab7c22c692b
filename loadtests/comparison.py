"""Runs every scenario on every side, in blocks of AB and BA, since machines drift; each run has servers started anew.

A block is two rounds: one in the order of the sides, one in the reverse, which first is chance's. A scenario gets more
until it is decided, or the rounds or the time are spent. A round that something disturbed is named, and made again: at
once, and if the neighbour is still there when the other scenarios have had their turn.
"""

import json
import os
import random
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
from statistics import median
from typing import Any

from asgictl.loadtests.contention import Watched
from asgictl.loadtests.happenings import APART_SECONDS, FIRST_SECONDS, Happenings
from asgictl.loadtests.inference import LOOKS
from asgictl.loadtests.provenance import redis_version
from asgictl.loadtests.run import Run, summarise
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.servers import Server, Side, SideError, end, pin, serving, with_threads
from asgictl.loadtests.usage import DATABASE, GENERATOR, Usage
from asgictl.loadtests.verdicts import COUNT_LOOKS, Answer, answers, decide, decided

USERS_FILE = Path(__file__).with_name("users.py")
OVERHEAD_SECONDS = 4.0  # of a run, beside its duration and warming up: starting, stopping
POLL_SECONDS = 0.2
IDLE_SECONDS = 6.0
SLOWEST = 500  # events a second: what takes longer has fewer of them
RATED_SECONDS = 10.0  # for a percentile
DEPLOY_SECONDS = 15.0  # for a deploy to come to its end: gunicorn's takes 7.5 s with sockets, and no load
BEGIN_SECONDS = 60  # until every user has started
ENDING_SECONDS = 30  # for what is in flight when a run ends
SPAWN_RATE = 500
LOWERED = 0.6  # of the slowest side's rate, where the load generator was the limit
GROWTH = 4  # times as many sockets at the end as at the beginning, where memory is asked for
AGAIN = 1  # times that a disturbed round is made again at once
MOST_DISTURBED = 6  # rounds of a scenario: then the neighbour is here to stay
TAIL_LINES = 12
NOT_COUNTED = "is not counted"
HTTP_USERS = {"Hello", "Mixed", "Noted", "DjangoWriter"}
PARTS: dict[str, Callable[[Scenario], bool]] = {
    "all": lambda _: True,
    "timed": lambda scenario: not scenario.happenings,
    "deploy": lambda scenario: scenario.happenings == ("deploy",),
}
Tick = Callable[[float], None]


@dataclass(slots=True)
class Comparison:
    """What is compared, on which cores, and what has been found. A side that does not start is not tried again.

    rounds: the most of a scenario. seconds_at_most: of all, after which no further round begins. seed: of the order.
    facts: what each side consists of: {"processes": {role: how many}, "threads": ...}. failures: why a side is missing.
    complaints: what else went wrong.
    """

    sides: list[Side]
    scenarios: list[Scenario]
    rounds: int
    duration: float
    server_cores: list[int]
    load_cores: list[int]
    seconds_at_most: float = float("inf")
    seed: int = 0
    runs: list[Run] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    stopping: threading.Thread = field(default_factory=threading.Thread)
    started: float = field(default_factory=time.monotonic)

    @property
    def watched(self) -> Watched:
        return Watched(self.server_cores, self.load_cores)

    def seconds(self, scenario: Scenario) -> float:
        """Return how long a run is measured."""
        if scenario.happenings:
            return max(self.duration if len(scenario.happenings) == 1 else 0.0, DEPLOY_SECONDS,
                       FIRST_SECONDS + APART_SECONDS * len(scenario.happenings))  # fmt: skip
        if scenario.events:
            return max(self.duration, scenario.events / SLOWEST)
        if scenario.metrics == ("kib",):
            return IDLE_SECONDS
        return max(self.duration, RATED_SECONDS) if scenario.metrics[0] == "p99" else self.duration

    def part(self, scenario: Scenario) -> list[Side]:
        """Return the sides that take part in a scenario."""
        return [side for side in self.sides if PARTS[side.part](scenario)]

    def round_seconds(self, scenario: Scenario) -> float:
        return len(self.part(scenario)) * (self.seconds(scenario) + scenario.warmup + OVERHEAD_SECONDS)

    @property
    def estimate_seconds(self) -> float:
        every = sum(self.rounds * self.round_seconds(scenario) for scenario in self.scenarios)
        return min(every, self.seconds_at_most)

    def run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        """Measure until all is decided, the rounds or the time are spent, or `stopping`. tick: told seconds passed."""
        self.started = time.monotonic()
        try:
            self._run(stopping, tick, began)
        finally:
            self.stopped()

    def _run(self, stopping: threading.Event, tick: Tick, began: Callable[[str], None]) -> None:
        chance, left = random.Random(self.seed), list(self.scenarios)  # noqa: S311 (an order, no secret)
        while left:
            for scenario in left:
                for order in block(self.part(scenario), chance)[
                    : self.rounds - len(self.good(scenario, self.sides[0]))
                ]:
                    if self._affords(scenario) and self._calm(scenario):
                        self._round(order, scenario, stopping, tick, began)
                    if stopping.is_set() or len(self.failures) == len(self.sides):
                        return
            left = [scenario for scenario in map(self._unsaturated, left) if self._goes_on(scenario)]

    def _unsaturated(self, scenario: Scenario) -> Scenario:
        """Return a scenario, at a rate that the load generator can keep where it was the limit; its rounds are anew."""
        found = [self.good(scenario, side) for side in self.part(scenario)]
        if (
            scenario.rate
            or scenario.events
            or scenario.locustfile
            or not any(run.saturated for runs in found for run in runs)
        ):
            return scenario
        rates = [median(run.rate for run in runs) for runs in found if runs]
        lowered = replace(scenario, rate=max(1.0, float(round(LOWERED * min(rates)))), metrics=("cost", "p99"))
        self.complaints.append(
            f"{scenario.name}: the load generator was the limit at {max(rates):,.0f}/s, "
            f"so that the sides are compared at {lowered.rate:,.0f}/s"
        )
        self.runs = [run for run in self.runs if run.scenario != scenario.name]
        self.scenarios[self.scenarios.index(scenario)] = lowered
        return lowered

    def _affords(self, scenario: Scenario) -> bool:
        passed = time.monotonic() - self.started
        tried = any(run.scenario == scenario.name for run in self.runs)
        return not tried or passed + self.round_seconds(scenario) <= self.seconds_at_most

    def _goes_on(self, scenario: Scenario) -> bool:
        """Whether a scenario gets more rounds; what it says is looked at after few of them only."""
        rounds = len(self.good(scenario, self.sides[0]))
        if rounds >= self.rounds or not self._calm(scenario) or not self._affords(scenario):
            return False
        found = [each for each in self.answers(again=True) if each.scenario == scenario.name]
        looks = COUNT_LOOKS if scenario.happenings else LOOKS
        return not found or not all(decided(each) and (rounds in looks or each.rounds == 0) for each in found)

    def answers(self, *, again: bool = False) -> list[Answer]:
        """Return what the runs say of the first side beside each other one, judged together."""
        found = []
        for scenario in self.scenarios:
            first, *others = ([run for run in self.runs if (run.side, run.scenario) == (side.name, scenario.name)]
                              for side in self.part(scenario))  # fmt: skip
            for other in others:
                found += answers(scenario, first, other, again=again) if first and other else []
        return decide(found)

    def good(self, scenario: Scenario, side: Side) -> list[Run]:
        """Return the runs of a side that nothing has disturbed on any side."""
        lost = self._disturbed(scenario)
        mine = [run for run in self.runs if (run.side, run.scenario) == (side.name, scenario.name)]
        return [run for run in mine if run.round not in lost]

    def _disturbed(self, scenario: Scenario) -> set[int]:
        return {run.round for run in self.runs if run.scenario == scenario.name and run.contention}

    def _calm(self, scenario: Scenario) -> bool:
        return len(self._disturbed(scenario)) < MOST_DISTURBED

    def _round(
        self, order: list[Side], scenario: Scenario, stopping: threading.Event, tick: Tick,
        began: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Run each side once; again when something disturbed one."""
        for _ in range(1 + AGAIN):
            number = 1 + max((run.round for run in self.runs if run.scenario == scenario.name), default=0)
            for side in order:
                began(f"{scenario.name} · {side.name} · round {number}")
                before = time.monotonic() - self.started
                self._one(side, scenario, number, stopping, lambda passed, before=before: tick(before + passed))  # type: ignore[misc]
                if stopping.is_set():
                    return
            why = [f"{run.side}: {run.contention[0]}" for run in self.runs  # the others stand in report.json
                   if (run.scenario, run.round) == (scenario.name, number) and run.contention]  # fmt: skip
            if not why:
                return
            self.complaints.append(f"{scenario.name}, round {number} {NOT_COUNTED}: {'; '.join(why)}")
            began(self.complaints[-1])
            if not self._affords(scenario) or not self._calm(scenario):
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
    side = with_threads(side, scenario.threads.get(side.name))
    side = replace(side, load=scenario.path if set(scenario.users) & HTTP_USERS else "ws:")
    started, seconds = time.monotonic(), comparison.seconds(scenario)
    with ExitStack() as stack:
        loads: list[Load] = []

        def prepare(server: Server) -> None:
            loads.append(stack.enter_context(loading(server, scenario, seconds, comparison.load_cores)))

        try:
            server = stack.enter_context(serving(side, prepare))
        except (SideError, OSError, subprocess.SubprocessError) as error:
            raise NotServing(str(error)) from error
        usage = Usage(server.runtime, "controller" if side.detached else "server", comparison.watched)
        for _ in range(2):  # what a process has forked before it was pinned is seen then
            usage.sample()
            servers = [pid for role, pids in usage.pids.items() if role not in (GENERATOR, DATABASE) for pid in pids]
            pin(servers, comparison.server_cores)  # only now: they start sooner on all
        if side.name not in comparison.facts and not scenario.threads:
            comparison.facts[side.name] = facts(server, side, usage)
        comparison.stopped()
        (load,) = loads
        load.begin()
        happenings = Happenings(server, scenario, usage)
        connections: dict[str, list[int]] = {}
        for passed in _polls(load, seconds):
            usage.sample()
            if passed:
                happenings.poll(passed)
                connections = connections or usage.connections(server.port)
            tick(min(time.monotonic() - started, seconds + OVERHEAD_SECONDS))
            if stopping.is_set():
                return None
        done = happenings.join(load.began() + seconds)
        record = load.record() | {"twice": ran_twice(server.notes)}
        comparison.stop(stack.pop_all())
        return summarise(scenario, side.name, number, record, usage, comparison.watched, done, connections)


def ran_twice(notes: Path) -> int:
    """Return how many lines of a file stand there before; 0 where there is none."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return len(lines) - len(set(lines))


def block(sides: list[Side], chance: random.Random) -> list[list[Side]]:
    """Return two orders of the sides, each the other's reverse, so that a drift weighs on all alike."""
    orders = [list(sides), list(reversed(sides))]
    chance.shuffle(orders)
    return orders


def _polls(load: "Load", seconds: float) -> Iterator[float]:
    """Yield how far the measuring has come, now and then, until the load has ended. Raises SideError."""
    deadline = time.monotonic() + BEGIN_SECONDS
    begun = 0.0
    while load.process.poll() is None:
        time.sleep(POLL_SECONDS)
        if not begun and (begun := load.began()):
            deadline = time.monotonic() + seconds + ENDING_SECONDS
        passed = time.time() - begun if begun else 0.0
        yield passed if passed < seconds else 0.0
        if time.monotonic() > deadline:
            raise SideError("the load generator did not end in time")
    yield 0.0


def facts(server: Server, side: Side, usage: Usage) -> dict[str, Any]:
    """Return what a side consists of, and how it is set."""
    processes = {role: len(pids) for role, pids in usage.pids.items() if role != GENERATOR}
    found: dict[str, Any] = {"processes": processes}
    if pids := usage.pids.get("redis"):
        found["redis_version"] = redis_version(pids[0])
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
        grows = scenario.metrics == ("kib",)
        users = max(1, scenario.count // GROWTH) if grows else scenario.count
        command = [
            *(sys.executable, "-P", "-m", "asgictl.loadtests.recorder"),
            *(str(file), str(scenario.warmup), str(seconds), str(scenario.count if grows else 0)),
            *(str(scenario.events), str(scenario.patience_seconds)),
            *("-f", scenario.locustfile or str(USERS_FILE), *scenario.users),
            *("--headless", "--only-summary", "--host", server.url),
            *("--users", str(users), "--spawn-rate", str(min(users, SPAWN_RATE))),
        ]
        environment = os.environ | {
            "XDG_RUNTIME_DIR": server.runtime,
            "SUPERVISOR_GROUP_NAME": GENERATOR,
            "ASGICTL_LOAD_PATH": scenario.path,
            "ASGICTL_LOAD_SLOW_PATH": scenario.slow_path,
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
