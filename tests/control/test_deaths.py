"""The line of a death."""

import signal
from pathlib import Path
from typing import Any

import pytest

from asgictl.control.deaths import STOPPED, death, how_ended
from asgictl.control.exits import Exit
from asgictl.control.what_ran import Ran
from asgictl.errors import NotRunning

REPORT = {"process": "worker-00", "pid": 7, "state": "ready"}


@pytest.mark.parametrize(
    ("report", "ran", "line"),
    [
        ({}, [], "worker-00 (pid 7) died: SIGSEGV"),
        ({"state": "starting"}, [], "worker-00 (pid 7) died: SIGSEGV before it was ready"),
        (
            {"state": "failed", "reason": "Traceback\n  …\nImportError: no shop\n"},
            [],
            "worker-00 (pid 7) could not start: ImportError: no shop",
        ),
        (
            {},
            [Ran("GET /a", "it runs once more"), Ran("http.request", "")],
            "worker-00 (pid 7) died: SIGSEGV; it ran GET /a (it runs once more), http.request",
        ),
    ],
)
def test_a_line_says_who_died_how_what_ran_and_what_becomes_of_it(
    report: dict[str, str], ran: list[Ran], line: str
) -> None:
    assert death({**REPORT, **report}, "died: SIGSEGV", ran) == line


def slot(last_exit: Exit | None) -> dict[str, Any]:
    return {"name": "worker-00", "statename": "RUNNING", "last_exit": last_exit and last_exit._asdict()}


KILLED = slot(Exit(7, signal.SIGSEGV, -1, 0.0, False))


@pytest.mark.parametrize(
    ("looks", "note", "how"),
    [
        ([[slot(None)], [slot(Exit(6, 0, 3, 0.0, False))], [KILLED]], "", "died: SIGSEGV"),
        ([[slot(None)]], "768\n", "died: exit status 3"),
        ([[slot(None)]], "11\n", "died: SIGSEGV"),
        ([[]], "", STOPPED),
        ([[]], "15\n", STOPPED),
        ([[{**slot(None), "statename": "STOPPING"}]], "15\n", STOPPED),
        ([[slot(None)]], "", "died"),
        ([NotRunning("gone")], "", "died"),
        ([NotRunning("stands still")], "768\n", "died: exit status 3"),
    ],
)
def test_how_is_supervisords_word_or_gunicorns(
    looks: list[Any], note: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(_supervisor: object) -> list[dict[str, Any]]:
        look = looks.pop(0) if looks[1:] else looks[0]
        if isinstance(look, Exception):
            raise look
        return list(look)

    monkeypatch.setattr("asgictl.control.deaths.Supervisor.started", started)
    monkeypatch.setattr("asgictl.control.deaths.EXIT_SECONDS", 60 if looks[1:] else 0.3)
    if note:
        (tmp_path / "exit-7").write_text(note)
    assert how_ended(tmp_path, "worker-00", 7, was_ready=True) == how
    assert not (tmp_path / "exit-7").exists()


def test_who_was_not_ready_may_have_been_stopped_for_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exit-7").write_text("0\n")
    stopping = [{**slot(None), "statename": "STOPPING"}]
    monkeypatch.setattr("asgictl.control.deaths.Supervisor.started", lambda _: stopping)
    assert how_ended(tmp_path, "worker-00", 7, was_ready=False) == "died: exit status 0"
