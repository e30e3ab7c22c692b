"""How ends are noted, and what is said of them."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from supervisor.states import ProcessStates

from asgictl.control import exits as module
from asgictl.control.exits import Exit, Exits, make_slots, reason, signal_name
from asgictl.errors import FENCED_STATUS, TIMEOUT_STATUS

KILLED = int(signal.SIGKILL)  # as waitpid(2) has it


class Kernel:
    """A clock, and a kernel that kills for memory."""

    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.vmstat = directory / "vmstat"
        self.kill(0)
        self.exits = Exits(lambda: self.now, self.vmstat)

    def kill(self, times: int) -> None:
        self.vmstat.write_text(f"pgfault 5\noom_kill {times}\ndrop_slab 0\n")

    def is_memory(self, wait_status: int = KILLED) -> bool:
        self.exits.note("worker-00", 7, wait_status, is_told=False)
        return bool(self.exits.of("worker-00")["last_exit"]["is_memory"])


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_ends_in_a_slot_are_counted_until_somebody_stops_it(kernel: Kernel) -> None:
    exits = kernel.exits
    assert exits.of("worker-00") == {"restarts": 0, "last_exit": None}
    exits.note("worker-00", 7, 9 << 8, is_told=False)
    kernel.now += 5
    exits.note("worker-00", 8, signal.SIGSEGV, is_told=False)
    last = Exit(8, signal.SIGSEGV, -1, 1005.0, is_memory=False)
    assert exits.of("worker-00") == {"restarts": 2, "last_exit": last._asdict()}
    assert exits.of("worker-01")["restarts"] == 0
    exits.note("worker-00", 9, 0, is_told=True)
    assert exits.of("worker-00")["restarts"] == 0


def test_a_kill_is_the_kernels_where_it_has_killed_for_memory(kernel: Kernel) -> None:
    assert not kernel.is_memory()
    kernel.kill(1)
    assert kernel.is_memory()
    assert not kernel.is_memory(signal.SIGSEGV)
    kernel.now += module.MEMORY_SECONDS
    assert not kernel.is_memory(), "that was long ago"


def test_a_process_may_take_a_while_to_end_once_it_is_killed_for_memory(kernel: Kernel) -> None:
    kernel.kill(1)
    kernel.now += 1
    kernel.exits.look()
    kernel.now += 3
    kernel.exits.look()
    assert kernel.is_memory()


def test_a_kernel_that_tells_nothing_has_killed_nothing(tmp_path: Path) -> None:
    exits = Exits(vmstat=tmp_path / "missing")
    exits.note("worker-00", 7, KILLED, is_told=False)
    assert exits.of("worker-00")["last_exit"]["is_memory"] is False


@pytest.mark.parametrize(
    ("end", "is_silent", "said"),
    [
        (Exit(7, 0, 9, 0.0, is_memory=False), False, "exit status 9"),
        (Exit(7, 0, TIMEOUT_STATUS, 0.0, is_memory=False), False, "timeout: a handler ran too long"),
        (Exit(7, 0, FENCED_STATUS, 0.0, is_memory=False), False, "fenced: its lease expired"),
        (Exit(7, signal.SIGSEGV, -1, 0.0, is_memory=False), False, "SIGSEGV"),
        (Exit(7, signal.SIGKILL, -1, 0.0, is_memory=True), False, "killed by the kernel: out of memory (SIGKILL)"),
        (Exit(7, signal.SIGKILL, -1, 0.0, is_memory=False), True, "silent: it sent no heartbeat (SIGKILL)"),
    ],
)
def test_each_kind_of_end_has_its_words(end: Exit, is_silent: bool, said: str) -> None:
    assert reason(end, is_silent=is_silent) == said


def test_a_signal_without_a_name_has_its_number() -> None:
    assert signal_name(0) == ""
    assert signal_name(60) == "signal 60"


def test_supervisord_tells_of_what_is_not_stopped(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    monkeypatch.setattr(module, "exits", kernel.exits)
    kernel.exits.note("worker-00", 7, 9 << 8, is_told=False)
    states = {"worker-00": ProcessStates.RUNNING, "worker-01": ProcessStates.STOPPED}
    processes = {name: SimpleNamespace(pid=8, get_state=lambda state=state: state) for name, state in states.items()}
    supervisord = SimpleNamespace(process_groups={"worker": SimpleNamespace(processes=processes)})
    (slot,) = json.loads(make_slots(supervisord).slots())
    assert (slot["name"], slot["group"], slot["statename"], slot["pid"]) == ("worker-00", "worker", "RUNNING", 8)
    assert (slot["restarts"], slot["last_exit"]["status"]) == (1, 9)
