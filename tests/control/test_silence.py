"""Who is silent, and what it ran."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from asgictl.control.silence import CHECK_SECONDS, LATE_SECONDS, NAMED, Silence, end, what_ran
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.started import Begun, Started
from asgictl.wire.messages import Connect, Job, Request, Scope, encode, encode_scope
from asgictl.wire.state import encode_state

KEYS = Keys("silence")


def test_who_was_heard_lately_is_no_suspect() -> None:
    silence = Silence(6.0, 100.0)
    assert silence.suspects({1: 100.0, 2: 100.5}, 100.5) == {}
    now = 100.5
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
        assert leader.wait(10) == -signal.SIGKILL
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_who_leads_none_ends_alone() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert os.getpgid(process.pid) == os.getpgid(0)
        end(psutil.Process(process.pid))
        assert process.wait(10) == -signal.SIGKILL


SCOPE = Scope("GET", "http", "1.1", "", "/a\nb", b"/a%0ab", b"", [], None, None)


@pytest.fixture
def noted(client: Any) -> Iterator[Any]:
    """Add events to streams, and return their places."""
    events = {
        "http.request": Request("i/1", 1, SCOPE, b""),
        "websocket.connect": Connect("i/2", 1, 1, encode_scope(SCOPE), b""),
        "background.thumbs": Job("1", 1, "thumbs", encode_state({})),
    }
    places = {}
    for channel, event in events.items():
        stream = KEYS.channel(channel)
        places[channel] = stream.encode(), client.xadd(stream, dict([encode(event)]))
    yield places
    client.delete(*map(KEYS.channel, events))


def test_a_thread_ran_what_it_started_last(noted: Any, url: str, tmp_path: Path) -> None:
    for part, channel in enumerate(("websocket.connect", "background.thumbs")):
        thread = Started(tmp_path / "started-7", part)
        thread.note(*noted["http.request"])
        thread.note(*noted[channel])
    assert what_ran(tmp_path, 7, url) == "; it ran websocket.connect /a?b, background.thumbs"


def test_where_events_run_side_by_side_those_are_named_that_are_not_committed(
    noted: Any, url: str, client: Any, tmp_path: Path
) -> None:
    started = Started(tmp_path / "started-7", 0, is_exact=False)
    for place in noted.values():
        started.note(*place)
    client.xdel(*noted["websocket.connect"])
    assert what_ran(tmp_path, 7, url) == "; it ran GET /a?b, background.thumbs"


def test_without_redis_the_channel_is_known(tmp_path: Path) -> None:
    Started(tmp_path / "started-7", 0).note(KEYS.channel("http.request").encode(), b"1-0")
    assert what_ran(tmp_path, 7, f"unix://{tmp_path}/absent") == "; it ran http.request"
    assert what_ran(tmp_path, 8, f"unix://{tmp_path}/absent") == ""


def test_a_server_ran_what_it_had_begun(tmp_path: Path) -> None:
    noted = Begun(tmp_path / "begun-7")
    ended = noted.begin("GET", "/a")
    for number in range(2 * NAMED):
        noted.begin("GET", f"/{number}")
    noted.end(ended)
    assert what_ran(tmp_path, 7, None).count("GET") == NAMED
