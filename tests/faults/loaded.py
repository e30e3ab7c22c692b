"""An instance under load of each kind, whose clients notice anything lost, repeated, reordered or not answered."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.links import NOTES, PATHS, PAUSE, Requests
from benchmarks.numbered import Load
from tests.conftest import Machine, until
from tests.faults.conftest import kill

ROOT = Path(__file__).parents[2]
SOCKETS = 12
FIRST_SECONDS = 60.0  # in which a new instance has answered each client


class Loaded:
    """An instance, and what its clients have noticed."""

    def __init__(self, machine: Machine, load: Load, requests: Requests) -> None:
        self.machine, self.load, self.requests = machine, load, requests

    def flows(self, seconds: float, what: str) -> None:
        """Wait until each client has been answered, whatever it was, what it sent from now on."""
        self.flowed(time.monotonic(), seconds, what)

    def flowed(self, since: float, seconds: float, what: str) -> None:
        """Wait until each client has been answered something that it sent after `since`, of time.monotonic()."""
        until(lambda: min([*self.load.began(), *self.requests.began]) > since or self.wrong, what, seconds)

    @property
    def wrong(self) -> list[str]:
        """What sockets noticed; one that could not be opened is told apart by its status."""
        return [line for line in self.load.wrong if "could not connect" not in line]


@contextmanager
def loaded(
    machine: Machine,
    notes: Path,
    target: str,
    *arguments: str,
    clients: int = 2,
    pause_seconds: float = 0,
    again: bool = False,
) -> Iterator[Loaded]:
    """Start benchmarks.links:TARGET, under load; `again` as of Load. It is killed when a test fails.

    It would stop only after long deadlines then, as would clients that nobody answers.
    """
    machine.directory = ROOT
    machine.environment |= {NOTES: str(notes), PAUSE: str(pause_seconds)}
    machine.start(f"benchmarks.links:{target}", *arguments)
    # A socket that opens again counts anew, which listeners would take for a gap.
    listeners = 0 if again or target == "streams" else 2
    paths = ("/numbers",) if target == "streams" else PATHS
    with (
        Load(
            machine.url,
            sockets=SOCKETS,
            pace_seconds=0.1,
            listeners=listeners,
            http=False,
            paths=paths,
            again=again,
            answer_seconds=100,
        ) as load,
        Requests(machine.port, clients=clients) as requests,
    ):
        try:
            site = Loaded(machine, load, requests)
            site.flows(FIRST_SECONDS, "it flows at first")
            yield site
        except BaseException:
            kill(machine)
            raise
