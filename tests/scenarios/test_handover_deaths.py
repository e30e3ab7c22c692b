"""Whoever takes part in a hand-over dies, or stands still, after any of its steps.

halted/sitecustomize.py has a process halt itself, the controller or Redis there. What was taken lives; what was not
ends once or goes on; nothing waits for long; each disconnect consumer runs once.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from asgictl.wire.messages import ABNORMAL_CLOSURE, SERVICE_RESTART
from tests.conftest import Machine, until
from tests.scenarios.moving import NOTES, Clients, disconnects
from tests.scenarios.test_deploys import processes
from tests.scenarios.test_handover import HALTED, ROOT, SECONDS, flow, interfaces, is_alive, start

SOCKETS = 4
MANY = 120
SILENT_SECONDS = 4  # where somebody is to be
NEVER_SECONDS = 20
HANG_SECONDS = 40.0  # in which each client is served again, or has ended
WAKES_SECONDS = 1.5  # less than what is silent for too long
LEASE_SECONDS = 30.0  # of an identity that nobody claims, as both of its processes are dead or have just exchanged it
REPEAT_SECONDS = 1.0  # in which a disconnect consumer would run twice
COMMAND_SECONDS = 60.0
KILL, STOP, WAKE = "kill", "stop", "wake"  # SIGKILL; SIGSTOP, for good and for a while
STEPS = {
    "old": (
        *(
            "KEEP_REPLIES",
            "Offer",
            "DISCLAIM",
            "QUIESCE",
            "Transfer 1",
            "Transfer 3",
            "Forget 1",
            "Yours 1",
            "Forget 3",
        ),
        *("Yours 4", "NoneLeft", "UNFOLLOW"),
    ),
    "new": ("FOLLOW", "Following", "Taken 1", "Taken 3", "Begin 1", "Begin 4", "CLAIM", "TRIM_REPLIES"),
}
SOME = {  # one round of each kind; make soak has all
    ("old", "Offer", KILL, "self"),
    ("old", "Transfer 3", KILL, "self"),
    ("old", "Forget 3", KILL, "self"),
    ("old", "Yours 1", STOP, "self"),
    ("new", "Following", KILL, "self"),
    ("new", "Taken 3", KILL, "self"),
    ("new", "Begin 1", KILL, "self"),
    ("new", "Taken 1", STOP, "self"),
    ("new", "Begin 1", WAKE, "self"),
    ("old", "Transfer 1", KILL, "controller"),
    ("old", "Yours 1", KILL, "redis"),
    ("new", "Taken 3", WAKE, "redis"),
}


class Step(NamedTuple):
    """What was carried out, by which end."""

    end: str
    name: str
    connection: str


def cases() -> Iterable[object]:
    for end, steps in STEPS.items():
        for step in steps:
            for whom, hows in (("self", (KILL, STOP, WAKE)), ("controller", (KILL, WAKE)), ("redis", (KILL, WAKE))):
                for how in hows:
                    marks = () if (end, step, how, whom) in SOME else (pytest.mark.soak,)
                    yield pytest.param(end, step, how, whom, marks=marks, id=f"{how} {whom} after {end} {step}")


def steps(place: Path) -> list[Step]:
    """Return what was carried out so far."""
    with suppress(FileNotFoundError):
        return [Step(*line.split()[1:]) for line in (place / "steps").read_text().splitlines()]
    return []


def must_live(place: Path, end: str, whom: str, how: str) -> set[str]:
    """Return the connections that nobody's death or silence may end."""
    done = steps(place)
    known = {each.connection for each in done if each.name == "Transfer"}
    if whom != "self" or how == WAKE:
        return known
    taken = {each.connection for each in done if (each.end, each.name) == ("new", "Taken")}
    return taken if end == "old" else set()


@pytest.mark.parametrize(("end", "step", "how", "whom"), [*cases()])
def test_a_halt_after_any_step(machine: Machine, tmp_path: Path, end: str, step: str, how: str, whom: str) -> None:
    name, _, nth = step.partition(" ")
    notes = tmp_path / "notes"
    machine.environment |= {"HALTING": str(tmp_path), "PYTHONPATH": f"{HALTED}:{ROOT}", NOTES: str(notes)}
    start(machine, "--silent-seconds", str(SILENT_SECONDS if how == STOP else NEVER_SECONDS))
    pid = 0 if whom == "self" else processes(machine, whom)[whom]
    with Clients(machine.port, SOCKETS) as clients:
        before = interfaces(machine)
        number = signal.SIGKILL if how == KILL else signal.SIGSTOP
        (tmp_path / "planned").write_text(f"{end} {name} {nth or 1} {number:d} {pid}")
        (tmp_path / "planned").rename(tmp_path / "plan")
        with machine.popen("reload", "--interfaces") as command:
            until((tmp_path / "halted").exists, "the step is taken")
            since = time.monotonic()
            if how == WAKE:
                time.sleep(WAKES_SECONDS)
                with suppress(ProcessLookupError):
                    os.kill(int((tmp_path / "halted").read_text()), signal.SIGCONT)
            patience = HANG_SECONDS + (SILENT_SECONDS if how == STOP else 0)
            until(lambda: clients.flowed(since + 0.1), "each client is served, or has ended", patience)
            command.communicate(timeout=COMMAND_SECONDS)
        until(
            lambda: not any(is_alive(each) for each in before), "those that are replaced have ended", patience + SECONDS
        )
        flow(clients)
        living = {each.connection for each in clients.each if not each.code}
        judge(clients, must_live(tmp_path, end, whom, how), living)
    assert clients.wrong == []
    everyone = {each.connection for each in clients.each}
    until(lambda: set(disconnects(notes)) >= everyone, "each disconnect consumer has run", LEASE_SECONDS + SECONDS)
    time.sleep(REPEAT_SECONDS)
    assert disconnects(notes) == dict.fromkeys(everyone, 1), f"{steps(tmp_path)}, {clients.codes}"


@pytest.mark.parametrize("end", ["old", "new"])
def test_a_death_among_many(machine: Machine, tmp_path: Path, end: str) -> None:
    """More is on its way then than one read takes."""
    notes = tmp_path / "notes"
    machine.environment |= {"HALTING": str(tmp_path), "PYTHONPATH": f"{HALTED}:{ROOT}", NOTES: str(notes)}
    start(machine)
    with Clients(machine.port, MANY, alone=True) as clients:
        (tmp_path / "plan").write_text(
            f"{end} {'Forget' if end == 'old' else 'Begin'} {MANY // 3} {signal.SIGKILL:d} 0"
        )
        machine.run("reload", "--interfaces")
        until((tmp_path / "halted").exists, "the step is taken")
        since = time.monotonic()
        until(lambda: clients.flowed(since), "each client is served, or has ended", HANG_SECONDS)
        living = {each.connection for each in clients.each if not each.code}
        judge(clients, must_live(tmp_path, end, "self", KILL), living)
    assert clients.wrong == []
    everyone = {each.connection for each in clients.each}
    until(lambda: set(disconnects(notes)) >= everyone, "each disconnect consumer has run", LEASE_SECONDS + SECONDS)
    time.sleep(REPEAT_SECONDS)
    assert disconnects(notes) == dict.fromkeys(everyone, 1)


def judge(clients: Clients, must: set[str], living: set[str]) -> None:
    assert must <= living, f"{must - living} did not live: {clients.codes}"
    assert set(clients.codes) <= {ABNORMAL_CLOSURE, SERVICE_RESTART}
