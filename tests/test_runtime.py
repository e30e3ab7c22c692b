"""What an application may ask about where it runs."""

import os

import pytest

from asgictl import runtime
from asgictl.runtime import Runtime


def test_outside_of_asgictl_there_is_an_answer_too() -> None:
    assert runtime.current().pid == os.getpid()


def test_entered_once_it_is_what_every_later_question_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_runtime", runtime.current())  # restored after the test
    runtime.enter(Runtime("split", "worker-03"))
    assert runtime.current() == Runtime("split", "worker-03")
