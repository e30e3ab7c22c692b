"""Who is silent, and how it is ended."""

import os
import signal
import subprocess

import psutil
import pytest

from asgictl.control.silence import CHECK_SECONDS, LATE_SECONDS, Silence, end


def test_who_was_heard_lately_is_no_suspect() -> None:
    silence = Silence(6.0, 100.0)
    assert silence.suspects({1: 100.0, 2: 100.0}, 100.0) == {}
    now = 100.0
    while now < 103.0:
        now += CHECK_SECONDS
        suspects = silence.suspects({1: 100.0, 2: now - 1}, now)
    assert suspects == {1: 3.0}


def test_a_look_that_is_late_excuses_everybody() -> None:
    silence = Silence(2.0, 100.0)
    late = 100.0 + CHECK_SECONDS + LATE_SECONDS + 0.1
    assert silence.suspects({1: 100.0}, late) == {}
    assert silence.suspects({1: 100.0}, late + 2) == {1: pytest.approx(2.0)}


@pytest.mark.slow
def test_who_leads_a_group_ends_with_it() -> None:
    command = "sleep 1000 & echo $!; exec sleep 1000"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, process_group=0) as leader:
        assert leader.stdout
        child = psutil.Process(int(leader.stdout.readline()))
        end(psutil.Process(leader.pid))
        assert leader.wait(60) == -signal.SIGKILL
        psutil.wait_procs([child], timeout=60)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_who_leads_none_ends_alone() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert os.getpgid(process.pid) == os.getpgid(0)
        end(psutil.Process(process.pid))
        assert process.wait(60) == -signal.SIGKILL
