"""What an application may ask about where it runs."""

import os
import subprocess
import sys

import pytest

from asgictl.app import runtime
from asgictl.app.runtime import Runtime


def test_outside_of_asgictl_there_is_an_answer_too() -> None:
    assert runtime.current().pid == os.getpid()


def test_entered_once_it_is_what_every_later_question_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_runtime", runtime.current())  # restored after the test
    runtime.enter(Runtime("split", "worker-03"))
    assert runtime.current() == Runtime("split", "worker-03")


def test_a_failure_s_line_names_target(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(runtime, "_runtime", Runtime("split", "worker-03", "site:app"))
    runtime.failures.error("%s %s failed", "GET", "/100%")
    assert caplog.messages == ["site:app: GET /100% failed"]


def test_a_process_may_open_as_many_files_as_the_hard_limit_says() -> None:
    source = (
        "import resource as r\nfrom asgictl.app.runtime import raise_file_limit\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200))\nraise_file_limit()\nprint(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "(200, 200)\n"
