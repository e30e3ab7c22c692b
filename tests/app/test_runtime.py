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


@pytest.mark.parametrize(("closed", "is_null"), [("", True), ("os.close(0)\nsys.__stdin__ = None\n", False)])
def test_what_runs_the_application_has_nothing_on_its_standard_input(closed: str, is_null: bool) -> None:
    source = (
        f"import os, sys\n{closed}from asgictl.app.runtime import Runtime, enter\n"
        "with open('/dev/zero') as other:\n    enter(Runtime('split', 'worker-03'))\n"
        "    print(os.readlink('/proc/self/fd/0'), sys.stdin.read() if sys.__stdin__ else '')"
    )
    done = subprocess.run([sys.executable, "-c", source], input="given", capture_output=True, text=True, check=True)
    assert done.stdout == ("/dev/null \n" if is_null else "/dev/zero \n")


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
