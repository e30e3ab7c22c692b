"""What a process has started and not ended, and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.control.what_ran import NAMED, what_ran
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.started import Begun, Started
from asgictl.wire.messages import Connect, Event, Job, Receive, Request, Scope, encode, encode_scope
from asgictl.wire.state import encode_state

KEYS = Keys("silence")
SCOPE = Scope("GET", "http", "1.1", "", "/a\nb", b"/a%0ab", b"", [], None, None)


def names(run_dir: Path, pid: int, redis_url: str | None) -> list[str]:
    return [ran.name for ran in what_ran(run_dir, pid, redis_url)]


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
    assert names(tmp_path, 7, url) == ["websocket.connect /a?b", "background.thumbs"]


def test_where_events_run_side_by_side_those_are_named_that_are_not_committed(
    noted: Any, url: str, client: Any, tmp_path: Path
) -> None:
    started = Started(tmp_path / "started-7", 0, is_exact=False)
    for place in noted.values():
        started.note(*place)
    client.xdel(*noted["websocket.connect"])
    assert names(tmp_path, 7, url) == ["GET /a?b", "background.thumbs"]


def test_without_redis_the_channel_is_known(tmp_path: Path) -> None:
    Started(tmp_path / "started-7", 0).note(KEYS.channel("http.request").encode(), b"1-0")
    assert names(tmp_path, 7, f"unix://{tmp_path}/absent") == ["http.request"]
    assert names(tmp_path, 8, f"unix://{tmp_path}/absent") == []


def test_a_server_ran_what_it_had_begun(tmp_path: Path) -> None:
    noted = Begun(tmp_path / "begun-7")
    ended = noted.begin("GET", "/a")
    for number in range(2 * NAMED):
        noted.begin("GET", f"/{number}")
    noted.end(ended)
    assert len(names(tmp_path, 7, None)) == NAMED


@pytest.mark.parametrize(
    ("event", "retries", "fate"),
    [
        (Request("i/1", 1, SCOPE, b""), 0, "it runs once more"),
        (Request("i/1", 2, SCOPE, b""), 0, "its client is answered 502"),
        (Request("i/1", 1, replace(SCOPE, method="POST"), b""), 0, "its client is answered 502"),
        (Receive("i/1", 1, 2, encode_scope(SCOPE), b"", ["x"], 0), 0, "it runs again"),
        (Receive("i/1", 1, 3, encode_scope(SCOPE), b"", ["x"], 0), 0, "dead-lettered"),
        (
            Receive("i/1", 1, 1, encode_scope(SCOPE), b"", ["x"], 0, at_most_once=True),
            0,
            "not run again: it may run only once",
        ),
        (Job("1", 1, "thumbs", encode_state({})), 1, "it runs again"),
        (Job("1", 1, "thumbs", encode_state({})), 2, "dead-lettered"),
    ],
)
def test_what_becomes_of_an_event_depends_on_what_it_is_and_how_often_it_died(
    event: Event, retries: int, fate: str, client: Any, url: str, tmp_path: Path
) -> None:
    stream = KEYS.channel("fates")
    field, value = encode(event)
    fields: dict[Any, Any] = {field: value, "retries": retries} if retries else {field: value}
    entry = client.xadd(stream, fields)
    Started(tmp_path / "started-7", 0).note(stream.encode(), entry)
    assert [ran.fate for ran in what_ran(tmp_path, 7, url)] == [fate]
    client.delete(stream)
