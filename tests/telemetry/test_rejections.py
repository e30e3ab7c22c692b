"""What was rejected or dropped is counted by reason, and logged without a flood."""

import logging
from collections.abc import Callable

import pytest

from asgictl.telemetry import rejections as module
from asgictl.telemetry.rejections import LOG_SECONDS, Rejections


class Clock:
    """The time, which the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "asgictl.rejections")

    def since_the_last_call() -> list[str]:
        messages = [message.partition(";")[0] for message in caplog.messages]
        caplog.clear()
        return messages

    return since_the_last_call


@pytest.mark.usefixtures("clock")
def test_counts_only_grow() -> None:
    rejections = Rejections()
    rejections.add("late")
    rejections.add("late", 2)
    rejections.add("full")
    assert rejections.snapshot() == {"late": 3, "full": 1}
    assert rejections.snapshot() == {"late": 3, "full": 1}


def test_the_first_of_a_reason_is_logged_at_once_and_the_rest_together_later(
    clock: Clock, logged: Callable[[], list[str]]
) -> None:
    rejections = Rejections()
    for _ in range(100):
        rejections.add("late")
    assert logged() == ["late (count 1"]
    clock.now += LOG_SECONDS
    rejections.add("late")
    assert logged() == ["late (count 100"]


def test_what_is_not_followed_by_another_is_logged_when_the_counts_are_taken(
    clock: Clock, logged: Callable[[], list[str]]
) -> None:
    rejections = Rejections()
    rejections.add("late")
    rejections.add("late")
    clock.now += LOG_SECONDS - 1
    rejections.snapshot()
    assert logged() == ["late (count 1"]
    clock.now += 1
    rejections.snapshot()
    assert logged() == ["late (count 1"]
    clock.now += LOG_SECONDS
    rejections.snapshot()
    assert logged() == []


@pytest.mark.usefixtures("clock")
def test_one_reason_does_not_silence_another(logged: Callable[[], list[str]]) -> None:
    rejections = Rejections()
    rejections.add("late")
    rejections.add("full")
    assert logged() == ["late (count 1", "full (count 1"]
