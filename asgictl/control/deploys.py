"""Deploys: replaces and scales the processes of an instance that runs.

What is new starts first. Once it is ready the old drains; an interface hands its WebSockets over to another, which it
finds in the run directory: the file successor-PID holds that one's process id.
"""

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis

from asgictl.app import release
from asgictl.config import Limits
from asgictl.control.description import completed, group_of, stop_seconds
from asgictl.control.preflight import check_installed
from asgictl.control.registry import UNKNOWN
from asgictl.control.remains import not_running
from asgictl.control.slots import POLL_SECONDS, Interrupted, Slots
from asgictl.control.status import status
from asgictl.control.supervisord_client import Supervisor
from asgictl.errors import AlreadyRunning, AsgictlError, NotRunning, RunDirectoryError, StartError
from asgictl.interface.drain import closed_seconds
from asgictl.interface.handover import HANDOVER_SECONDS
from asgictl.layers.redis.endpoint import endpoint
from asgictl.machine.run_dir import DESCRIPTION, RunDir, successor_path

CHANGING = "changing"  # the lock of a change
REPORT_SECONDS = 5.0  # in which processes that live have reported to a controller that has just begun
# Roles, in the order in which new code reaches them.
NEW_CODE: dict[str, tuple[str, ...]] = {"split": ("interface", "worker"), "inprocess": ("server",)}
SUPERVISORD_STAYS = (
    "supervisord is not replaced: asgictl stop and start do that; meanwhile nothing is served, and all WebSockets close"
    " (1012)"
)
REDIS_STAYS = "Redis is not replaced: asgictl restart redis does that; meanwhile events wait, and no WebSocket closes"

Tell = Callable[[str], None]


def untold(_step: str) -> None:
    """Tell nobody of a step."""


class Cost(NamedTuple):
    """Of a change. closed: WebSockets (1012). killed: processes that did not drain in time."""

    closed: int
    killed: int


class Held(NamedTuple):
    """What is open: WebSockets, and requests; of workers an ASGI application's."""

    sockets: int
    requests: int


@dataclass(frozen=True, slots=True)
class Drained:
    """A process that was told to drain. sockets: that it held and closes unless they move. moves: of its slot, then."""

    group: str
    name: str
    sockets: int
    moves: Mapping[str, int]

    def closed(self, moves: Mapping[str, int]) -> int:
        """Return how many sockets were closed. moves: as they are once it has ended."""
        moved, overdue = (moves.get(kind, 0) - self.moves.get(kind, 0) for kind in ("moved", "overdue"))
        return overdue if moved or overdue else self.sockets


class Deploys:
    """Changes to the instance of this name. stopping: set by whoever wants a start to be given up.

    Raises RunDirectoryError when its run directory cannot be trusted.
    """

    def __init__(self, name: str, stopping: threading.Event | None = None) -> None:
        self._name = name
        self._run_dir = RunDir.of(name)
        self._stopping = stopping or threading.Event()
        self._slots = Slots(self._run_dir.path, self._stopping)

    def replace(self, role: str, name: str | None = None, tell: Tell = untold, *, waits: bool = False) -> Cost:
        """Start new processes of a role, and have the old drain once all of the new are ready.

        name: of the release, "" for a hash of the code, None for the one that it has. Interfaces have none, and are
        replaced one by one. tell: hears of each step. Returns once the new serve; where it waits, once the old have
        ended, with what that cost. Raises NotRunning, AlreadyRunning while another change is under way, and as
        Slots.start(): what has not been replaced has gone on then, and what failed is gone.
        """
        with self._changing() as described:
            if role in ("redis", "controller"):
                return self._restart(described, role, tell)
            if role not in NEW_CODE[described["mode"]]:
                raise NotRunning(f"--mode={described['mode']} has no {role}")
            drained = self._replace(described, role, name, tell, [])
        return self._cost(drained) if waits else Cost(0, 0)

    def replace_all(self, name: str | None = None, tell: Tell = untold, *, waits: bool = False) -> Cost:
        """Have everything run the asgictl and the code that are installed now, but for supervisord and Redis.

        Takes, returns and raises as replace().
        """
        with self._changing() as described:
            tell(f"asgictl {check_installed(Supervisor(self._run_dir.path).pid())} is installed")
            killed = self._restart(described, "controller", tell).killed
            drained: list[Drained] = []
            replaced = ["controller"]
            for role in NEW_CODE[described["mode"]]:
                drained += self._replace(described, role, name, tell, replaced)
            tell(SUPERVISORD_STAYS)
            if described["redis"] == "embedded":
                tell(REDIS_STAYS)
        cost = self._cost(drained) if waits else Cost(0, 0)
        return cost._replace(killed=cost.killed + killed)

    def scale(self, role: str, count: int, tell: Tell = untold, *, waits: bool = False) -> Cost:
        """Have so many processes of a role: start more, or drain the last ones. Returns and raises as replace()."""
        with self._changing() as described:
            if described["mode"] != "split":
                raise StartError("--mode=inprocess has one server, whose --workers are gunicorn's: use asgictl restart")
            serving = self._slots.serving(role)
            more = count - len(serving)
            started = self._start(described, role, more, tell) if more > 0 else []
            try:
                self._run_dir.write(DESCRIPTION, json.dumps({**described, f"{role}s": count}))
            except BaseException:
                self._slots.stop(role, started)
                raise
            drained = self._drain(described, role, serving[count:], serving[:count], tell)
        return self._cost(drained) if waits else Cost(0, 0)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Have the instance to ourselves for one change; yields its configuration."""
        described = described_of(self._name, self._run_dir)
        with self._run_dir.locked(CHANGING) as is_ours:
            if not is_ours:
                raise AlreadyRunning("another reload, restart or scale is under way; wait for it")
            self._run_dir.check_room()  # else what starts could neither log nor be described
            yield described

    def _start(self, described: dict[str, Any], role: str, count: int, tell: Tell) -> list[str]:
        return start_role(self._run_dir, self._slots, described, role, count, tell)

    def _restart(self, described: dict[str, Any], role: str, tell: Tell) -> Cost:
        """Restart what there is only one of, or start it should it have ended; connections wait for it."""
        if role == "redis" and described["redis"] != "embedded":
            raise NotRunning("this instance has no embedded Redis")
        killed = self._slots.stop(role, self._slots.serving(role))
        self._start(described, role, 1, tell)
        return Cost(0, killed)

    def _reports(self, names: Collection[str]) -> dict[str, Any]:
        """Return what processes have reported, once these have: the controller may have begun a moment ago."""
        deadline = time.monotonic() + REPORT_SECONDS
        reports = self._slots.reports()
        while {*names} - {each["process"] for each in reports["ready"]} and time.monotonic() < deadline:
            self._stopping.wait(POLL_SECONDS)
            reports = self._slots.reports()
        return reports

    def _replace(
        self, described: dict[str, Any], role: str, name: str | None, tell: Tell, replaced: list[str]
    ) -> list[Drained]:
        """Replace the processes of a role. replaced: what this change has replaced, to which they are added."""
        group, drained = group_of(described, role), list[Drained]()
        left = self._slots.serving(group)
        is_interface = role == "interface"
        for old in [[each] for each in left] if is_interface else [left]:
            with self._serving_on(left, replaced, tell), self._released(None if is_interface else name):
                new = self._start(described, role, 1 if is_interface else described["workers"], tell)
            drained += self._drain(described, role, old, new, tell)
            left = left[len(old) :]
            replaced += old
        return drained

    @contextlib.contextmanager
    def _serving_on(self, left: Sequence[str], replaced: Sequence[str], tell: Tell) -> Iterator[None]:
        """Tell what serves on should what is new not start."""
        try:
            yield
        except (AsgictlError, Interrupted):
            named = self._slots.release(left)
            changed = f"{', '.join(replaced)} had been replaced" if replaced else "nothing has changed"
            tell(f"{changed}: {named or ', '.join(left)} still serve{'s' if named or len(left) == 1 else ''}")
            raise

    @contextlib.contextmanager
    def _released(self, name: str | None) -> Iterator[None]:
        """Have processes that start take this name; what fails to start leaves the one that was."""
        before = ""
        if name is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                before = self._run_dir.read(release.FILE)
            self._run_dir.write(release.FILE, name)
        try:
            yield
        except BaseException:
            if name is not None:
                with contextlib.suppress(RunDirectoryError):  # what made it fail says more
                    self._run_dir.write(release.FILE, before)
            raise

    def _drain(
        self, described: dict[str, Any], role: str, old: Sequence[str], successors: Sequence[str], tell: Tell
    ) -> list[Drained]:
        """Have processes drain; interfaces give their sockets to the successors, each to one, spread evenly."""
        reports = self._reports({*old, *successors} if role == "interface" else ())
        group, held, options = group_of(described, role), self._held(), described["options"]
        is_asgi = any(each.get("websocket") == "ASGI" for each in reports["ready"])
        drains = []
        for index, name in enumerate(old):
            successor = successors[index % len(successors)]
            hands_over = role == "interface" and self._hand_over(reports, name, successor)
            if hands_over and held[name].sockets and not is_asgi:
                what = f"{counted(held[name].sockets, 'WebSocket')} of {name} to {successor}"
                tell(f"handing over {what}, until {_clock(HANDOVER_SECONDS)} at the latest")
            else:
                drains.append(name)
        self._slots.drain(group, old)
        if drains:
            sockets, requests = map(sum, zip(*(held[each] for each in drains), strict=True))
            closed, latest = _clock(_closed_seconds(role, options)), _clock(stop_seconds(group, options))
            what = f"{counted(sockets, 'WebSocket')} (closed by {closed}) and {counted(requests, 'request')}"
            what += f", until {latest} at the latest"
            tell(f"draining {', '.join(drains)}: {what if sockets or requests else 'nothing is open'}")
        moves = reports["moves"]
        return [
            Drained(group, each, 0 if role == "worker" else held[each].sockets, moves.get(each, {})) for each in old
        ]

    def _hand_over(self, reports: dict[str, Any], old: str, successor: str) -> bool:
        """Tell an interface who takes its sockets; returns whether both of them can."""
        ready = {each["process"]: each for each in reports["ready"] if each.get("keeps") == ""}
        if is_possible := {old, successor} <= ready.keys():
            file = successor_path(self._run_dir.path, ready[old]["pid"])
            self._run_dir.write(file.name, str(ready[successor]["pid"]))
        return is_possible

    def _held(self) -> dict[str, "Held"]:
        """Return what processes have open, by slot."""
        held = defaultdict[str, Held](lambda: Held(0, 0))
        for each in status(self._name)["processes"]:
            slot = each["process"].partition("/")[0]
            sockets, requests = held[slot]
            held[slot] = Held(sockets + each.get("websockets", 0), requests + each.get("http", 0))
        return held

    def _cost(self, drained: Sequence[Drained]) -> Cost:
        """Wait until these have ended, and return what that cost, as far as it is known when we are told to end."""
        killed = sum(self._slots.await_end(each.group, [each.name]) for each in drained)
        if self._stopping.is_set():
            return Cost(0, killed)
        moves = self._slots.reports()["moves"]
        return Cost(sum(each.closed(moves.get(each.name, {})) for each in drained), killed)


def described_of(name: str, run_dir: RunDir) -> dict[str, Any]:
    """Return the configuration of an instance that runs, as JSON has it; raises NotRunning."""
    if Supervisor(run_dir.path).answers():
        with contextlib.suppress(OSError):
            return completed(run_dir.description())
    raise not_running(name, run_dir.path)


def start_role(
    run_dir: RunDir, slots: Slots, described: dict[str, Any], role: str, count: int, tell: Tell = untold
) -> list[str]:
    """Start processes of a role, and return their slots once they are ready. Raises as Slots.start()."""
    group, began = group_of(described, role), time.monotonic()
    is_ready: dict[str, Callable[[list[str]], bool]] = {
        "gunicorn": lambda names: slots.ready(names) >= count,  # which has all of its processes in one slot
        "redis": lambda _: pings(run_dir.redis_url),
        "controller": lambda _: slots.reports() is not UNKNOWN,
    }
    tell(f"starting {counted(count, role)}")
    in_slots = 1 if group in is_ready else count
    started = slots.start(group, in_slots, began + described["start_seconds"], is_ready.get(group))
    named, seconds = slots.release(started), time.monotonic() - began
    tell(f"ready after {seconds:.1f} s: {', '.join(started)}" + (f", {named}" if named else ""))
    return started


def pings(url: str) -> bool:
    """Whether the Redis at `url` answers."""
    try:
        with endpoint(url).client(1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as "1 worker", "0 workers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _closed_seconds(role: str, options: Mapping[str, str]) -> float:
    """Return within what time a process that drains has closed its WebSockets; a worker an ASGI application's."""
    return float(options.get("ASGICTL_DRAIN_SECONDS", 0)) if role == "worker" else closed_seconds(Limits())


def _clock(seconds: float) -> str:
    """Return the time of day in so many seconds."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
