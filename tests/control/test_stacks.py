"""Where threads are, of processes that write to a log as supervisord has them do."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgictl.control.stacks import NOTHING, Process, stacks
from asgictl.layers.redis.started import Begun
from tests.conftest import until

SOURCE = """
import sys, time
from asgictl.telemetry.logs import set_up
set_up("human", "p")
def wait_for_the_database():
    print("up", file=sys.stderr, flush=True)
    time.sleep(100)
wait_for_the_database()
"""


@pytest.fixture(autouse=True)
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers may take its time."""
    monkeypatch.setattr("asgictl.control.stacks.ANSWER_SECONDS", 60)


@contextmanager
def logging_process(run_dir: Path, name: str, source: str = SOURCE) -> Iterator[Process]:
    (run_dir / "log").mkdir(exist_ok=True)
    log = run_dir / "log" / f"{name.partition('/')[0]}.log"
    before = log.read_text().count("up\n") if log.exists() else 0  # of who shares it
    with log.open("a") as file, subprocess.Popen([sys.executable, "-c", source], stderr=file) as process:
        try:
            until(lambda: log.read_text().count("up\n") > before, "it is up")
            yield Process(name, name.partition("-")[0], process.pid)
        finally:
            process.kill()


def test_a_process_says_what_it_runs_and_where(tmp_path: Path) -> None:
    with logging_process(tmp_path, "worker-00") as process:
        Begun(tmp_path / f"begun-{process.pid}").begin("GET", "/slow")
        (text,) = stacks(tmp_path, None, [process])
    assert text.startswith(f"worker-00 (pid {process.pid}) runs GET /slow\n  Current thread 0x")
    assert "in wait_for_the_database" in text
    assert "up" not in text.split()


def test_who_shares_a_log_is_asked_one_after_another(tmp_path: Path) -> None:
    with logging_process(tmp_path, "server-00/1") as one, logging_process(tmp_path, "server-00/2") as other:
        texts = list(stacks(tmp_path, None, [one, other, Process("redis", "redis", 1)]))
    assert [text.split(" ")[0] for text in texts] == ["server-00/1", "server-00/2"]
    assert [text.count("in wait_for_the_database") for text in texts] == [1, 1]


def test_who_does_not_answer_is_said_to_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgictl.control.stacks.ANSWER_SECONDS", 0.1)
    source = "import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(100)"
    with logging_process(tmp_path, "worker-00", source) as process:  # SIGURG alone ends nobody
        assert NOTHING in next(stacks(tmp_path, None, [process]))
