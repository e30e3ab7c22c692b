"""Events that were given up, on a real server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from asgictl.cli.main import main
from asgictl.errors import ConsumerError, RedisError, UnknownChannel
from asgictl.layers.redis.dead_letters import MOST_DEAD_LETTERS, DeadLetters, dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.messages import (
    VERSION,
    Event,
    Job,
    Receive,
    Request,
    Scope,
    decode_event,
    encode,
    encode_scope,
    encode_state,
)

HEADERS = [(b"x-name", b"\xe9")]
REQUEST = Request("i/1", 2, Scope("POST", "http", "1.1", "", "/pay", b"/pay", b"", HEADERS, None, None), b"\xff1", True)
SOCKET = encode_scope(Scope("", "ws", "1.1", "", "/ws/hall", b"/ws/hall", b"", [], None, None))
JOB = Job("job.a", 4, "thumbs", encode_state({"id": 5}), 300)
RECEIVE = Receive("i/2", 7, 3, SOCKET, b"", ["hi", b"\x00"], 40)


@pytest.fixture
def client(client: Any) -> Iterator[Any]:
    yield client
    client.flushall()


@pytest.fixture
def letters(url: str, client: Any) -> DeadLetters:
    return DeadLetters(url, "shop")


def keep(client: Any, channel: str, event: Event, reason: str = "it took too long") -> str:
    """Give an event up; returns its id."""
    command = dead_letter_command(Keys("shop"), channel, encode(event)[1], reason)
    kept: bytes = client.execute_command(*command)
    return kept.decode()


@pytest.fixture
def ids(client: Any) -> list[str]:
    return [keep(client, "http.request.slow", REQUEST), keep(client, "websocket.receive", RECEIVE, "workers died")]


def test_what_was_given_up_is_listed_the_oldest_first(letters: DeadLetters, ids: list[str]) -> None:
    first, second = letters.all()
    assert (first.id, first.channel, first.reason, first.event) == (
        *(ids[0], "http.request.slow", "it took too long", REQUEST),
    )
    assert (second.id, second.event) == (ids[1], RECEIVE)


def test_a_line_says_when_where_what_and_why(letters: DeadLetters, ids: list[str]) -> None:
    lines = [letter.line for letter in letters.all()]
    assert [line.split("  ")[0] for line in lines] == ids
    assert time.strftime("%Y-%m-%d") in lines[0] or time.strftime("%H") == "00"
    assert lines[0].endswith("  http.request.slow  POST /pay  it took too long")
    assert lines[1].endswith("  websocket.receive  /ws/hall  workers died")


def test_a_request_is_shown_with_its_headers_and_body(letters: DeadLetters, ids: list[str]) -> None:
    _, *lines = letters.one(ids[0]).text.splitlines()
    assert lines == ["connection i/1, attempt 2", "x-name: é", r"body: b'\xff1', and more that was not kept"]


def test_a_turn_is_shown_with_its_frames_by_their_numbers(letters: DeadLetters, ids: list[str]) -> None:
    _, *lines = letters.one(ids[1]).text.splitlines()
    assert lines == ["connection i/2, attempt 3", "frame 40: 'hi'", r"frame 41: b'\x00'"]


@pytest.mark.parametrize(
    "fields",
    [
        {"9": encode(REQUEST)[1]},
        {f"{VERSION}": b"garbage"},
        {f"{VERSION}": encode(Receive("i", 1, 1, b"", b"", [], 0))[1]},
    ],
    ids=["another version", "garbage", "garbage within"],
)
def test_one_that_cannot_be_read_is_listed_all_the_same(
    fields: dict[str, bytes], letters: DeadLetters, client: Any
) -> None:
    client.xadd(Keys("shop").dead, {**fields, "channel": "c", "reason": "r"})
    (letter,) = letters.all()
    assert letter.event is None
    assert letter.line == letter.text
    assert letter.line.endswith("  c  ?  r")


@pytest.mark.parametrize("which", ["some", "all"])
def test_purging_deletes_those_that_are_named_or_all(which: str, letters: DeadLetters, ids: list[str]) -> None:
    named = (ids[0], "1-1") if which == "some" else ()
    assert letters.purge(named) == (1 if named else 2)
    assert [letter.id for letter in letters.all()] == (ids[1:] if named else [])
    assert letters.purge(()) == (1 if named else 0)


@pytest.mark.parametrize(("id", "said"), [("1-1", "no dead letter 1-1"), ("nonsense", "cannot be had")])
def test_one_that_is_not_there_is_an_error_that_says_so(id: str, said: str, letters: DeadLetters) -> None:
    with pytest.raises(RedisError, match=said):
        letters.one(id)


def jobs_of(client: Any) -> list[Event]:
    entries = client.xrange(Keys("shop").channel("background.thumbs"))
    return [decode_event(*next(iter(fields.items()))) for _, fields in entries]


def test_a_job_is_shown_with_its_content(letters: DeadLetters, client: Any) -> None:
    letter = letters.one(keep(client, JOB.channel, JOB))
    assert letter.line.endswith("  background.thumbs  job.a  it took too long")
    assert letter.text.splitlines()[1:] == ["attempt 4", "content: {'id': 5}"]


@pytest.mark.parametrize("named", [True, False])
def test_jobs_are_requeued_with_attempts_counted_anew(
    named: bool, letters: DeadLetters, ids: list[str], client: Any
) -> None:
    id = keep(client, JOB.channel, JOB)
    assert letters.requeue((id,) if named else ()) == 1
    assert jobs_of(client) == [Job("job.a", 1, "thumbs", JOB.content)]
    assert [letter.id for letter in letters.all()] == ids
    assert letters.requeue(()) == 0


def test_what_a_client_waited_for_is_not_requeued(letters: DeadLetters, ids: list[str]) -> None:
    for id in ids:
        with pytest.raises(ConsumerError, match="only background messages"):
            letters.requeue((id,))
    with pytest.raises(RedisError, match="no dead letter"):
        letters.requeue(("1-1",))
    assert len(letters.all()) == 2


def test_a_job_of_a_channel_that_is_no_more_stays_a_dead_letter(letters: DeadLetters, client: Any) -> None:
    keep(client, JOB.channel, JOB)
    client.set(Keys("shop").manifest, encode_manifest(Manifest(VERSION, "2", True, [])))
    with pytest.raises(UnknownChannel, match="'thumbs', it has none"):
        letters.requeue(())
    assert (len(letters.all()), jobs_of(client)) == (1, [])


def test_instances_keep_theirs_apart(url: str, ids: list[str]) -> None:
    assert DeadLetters(url, "blog").all() == []


def test_the_oldest_go_when_there_are_too_many(client: Any) -> None:
    stream = Keys("shop").dead
    with client.pipeline() as pipe:
        for _ in range(MOST_DEAD_LETTERS + 500):
            pipe.execute_command(*dead_letter_command(Keys("shop"), "c", b"", "r"))
        pipe.execute()
    assert MOST_DEAD_LETTERS <= client.xlen(stream) < MOST_DEAD_LETTERS + 500


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:1", "redis://:hunter2/@127.0.0.1:1", "http://hunter2"])
def test_a_redis_that_cannot_be_had_is_an_error_without_its_password(url: str) -> None:
    with pytest.raises(RedisError) as caught:
        DeadLetters(url, "shop").all()
    assert "hunter2" not in str(caught.value)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dead-letters", *arguments])


def test_the_command_line_lists_shows_and_purges(url: str, ids: list[str]) -> None:
    where = ("--redis", url, "--name", "shop")
    assert [line.split()[0] for line in run("list", *where).output.splitlines()] == ids
    assert "frame 40: 'hi'" in run("show", ids[1], *where).output
    assert run("purge", ids[0], *where).output == "1 deleted\n"
    assert run("purge", *where).output == "1 deleted\n"
    shown = run("show", ids[0], *where)
    assert (shown.exit_code, shown.stderr) == (
        5,
        f"Error: there is no dead letter {ids[0]}; see asgictl dead-letters list\n",
    )
