"""What processes have reported lately."""

from pathlib import Path

import pytest

from asgictl.control import registry as module
from asgictl.control.registry import History
from asgictl.telemetry.metrics import REPORTS, Figures


class Clock:
    """The time, which the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def counted(requests: int, busy_seconds: float = 0.0) -> Figures:
    figures = Figures(busy_seconds=busy_seconds, cpu_seconds=busy_seconds)
    for _ in range(requests):
        figures.answer(200, 0.1, 0.05)
    return figures


def test_rates_are_those_of_the_last_reports_and_totals_of_all_time(clock: Clock) -> None:
    history = History()
    for second in range(2 * REPORTS):
        clock.now += 1
        history.add(7, counted(100 * min(second, REPORTS), 0.5 * second))
    found = history.summary()
    assert found["requests"]["total"] == 100 * REPORTS
    assert found["requests"]["per_second"] == 0  # none in the last ten seconds
    assert found["requests"]["p50_seconds"] is None
    assert found["figures"][7]["busy_threads"] == found["figures"][7]["cpu_share"] == pytest.approx(0.5)


def test_processes_add_up(clock: Clock) -> None:
    history = History()
    for pid in (7, 8):
        history.add(pid, counted(0))
    clock.now += 2
    for pid in (7, 8):
        history.add(pid, counted(20))
    found = history.summary()
    assert found["requests"]["per_second"] == 20
    assert found["requests"]["by_status"] == {200: 40}
    assert found["requests"]["p99_seconds"] == pytest.approx(0.1, rel=0.25)
    assert found["requests"]["run"]["p50_seconds"] == pytest.approx(0.05, rel=0.25)
    assert found["turns"]["total"] == 0


def test_one_report_makes_no_rate(clock: Clock) -> None:
    """As after a controller's restart: what was counted before is not of the last second."""
    history = History()
    history.add(7, counted(1000, 90.0))
    found = history.summary()
    assert (found["requests"]["total"], found["requests"]["per_second"]) == (1000, 0)
    assert found["figures"][7]["cpu_share"] is None


def test_a_hand_over_is_shown_as_it_is_now(clock: Clock) -> None:
    history = History()
    history.add(7, Figures(waiting=20, until=1060.0))
    history.add(7, Figures(moved=15, waiting=5, until=1060.0))
    found = history.summary()["figures"][7]
    assert (found["moved"], found["refused"], found["overdue"]) == (15, 0, 0)
    assert (found["waiting"], found["until"]) == (5, 1060.0)


def test_a_process_that_ended_is_counted_no_more(clock: Clock) -> None:
    history = History()
    history.add(7, counted(1))
    history.forget(7)
    history.forget(8)
    assert (history.summary()["figures"], history.latest()) == ({}, {})


def test_how_long_a_process_has_been_silent(clock: Clock) -> None:
    history = History()
    assert history.silent_seconds(7) == 0
    history.add(7, counted(1))
    clock.now += 5
    assert history.silent_seconds(7) == history.summary()["figures"][7]["heard_seconds_ago"] == 5


def test_what_processes_have_counted_outlives_them_and_the_controller(clock: Clock, tmp_path: Path) -> None:
    history = History(tmp_path / "totals.json")
    for pid in (7, 8):
        history.add(pid, counted(5))
    history.forget(7)
    history.forget(7)
    history.forget(8, has_ended=False)  # the controller ends, not that process
    assert history.summary()["requests"]["total"] == 5
    again = History(tmp_path / "totals.json")
    again.add(8, counted(6))
    found = again.summary()["requests"]
    assert (found["total"], found["by_status"], found["per_second"]) == (11, {200: 11}, 0)


@pytest.mark.parametrize("text", ["", "[]", '{"requests": "x"}'])
def test_totals_that_cannot_be_read_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "totals.json").write_text(text)
    assert History(tmp_path / "totals.json").summary()["requests"]["total"] == 0


def test_a_disk_without_room_costs_totals_of_the_next_controller_alone(tmp_path: Path) -> None:
    history = History(tmp_path / "missing" / "totals.json")
    history.add(7, counted(5))
    history.forget(7)
    assert history.summary()["requests"]["total"] == 5


def test_what_runs_goes_on_until_the_next_report(clock: Clock) -> None:
    history = History()
    history.add(7, Figures(runs=[("GET /slow", 2.0)]))
    clock.now += 0.5
    assert history.summary()["figures"][7]["runs"] == [{"what": "GET /slow", "seconds": 2.5}]


def test_work_is_that_between_the_last_two_reports(clock: Clock) -> None:
    history = History()
    for events in (0, 10, 30):
        clock.now += 1
        history.add(7, Figures(events=events, busy_seconds=events / 50))
    history.add(8, Figures(events=99))
    assert history.work([7, 8, 9]) == pytest.approx((20, 0.4))
