"""Events that were given up, on a real server."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from redis.exceptions import ResponseError

from asgictl.cli.main import main
from asgictl.config import DEAD_LETTER_BYTES, MOST_DEAD_LETTERS
from asgictl.errors import ConsumerError, RedisError, UnknownChannel
from asgictl.layers.redis.dead_letters import DeadLetters, dead_letter_command
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import reap
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.messages import (
    VERSION,
    Event,
    Job,
    Receive,
    Request,
    Scope,
    decode_event,
    decode_scope,
    encode,
    encode_scope,
)
from asgictl.wire.state import encode_state

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


def entry(event: Event, **beside: str | int) -> dict[Any, Any]:
    """Return the fields of an entry of a stream."""
    return {str(VERSION): encode(event)[1], **beside}


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


@pytest.mark.parametrize(("id", "said"), [("1-1", "no dead letter 1-1"), ("nonsense", "a request to Redis failed")])
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
    assert len(list(letters.all())) == 2


def test_a_job_of_a_channel_that_is_no_more_stays_a_dead_letter(letters: DeadLetters, client: Any) -> None:
    keep(client, JOB.channel, JOB)
    client.set(Keys("shop").manifest, encode_manifest(Manifest(VERSION, "2", True, [])))
    with pytest.raises(UnknownChannel, match="'thumbs', it has none"):
        letters.requeue(())
    assert (len(list(letters.all())), jobs_of(client)) == (1, [])


def test_instances_keep_theirs_apart(url: str, ids: list[str]) -> None:
    assert list(DeadLetters(url, "blog").all()) == []


@pytest.mark.slow
def test_the_oldest_go_when_there_are_too_many(client: Any) -> None:
    stream = Keys("shop").dead
    with client.pipeline() as pipe:
        for _ in range(MOST_DEAD_LETTERS + 500):
            pipe.execute_command(*dead_letter_command(Keys("shop"), "c", b"", "r"))
        pipe.execute()
    assert MOST_DEAD_LETTERS <= client.xlen(stream) < MOST_DEAD_LETTERS + 500


def used(client: Any) -> int:
    return int(client.memory_usage(Keys("shop").dead, samples=0))


@pytest.mark.slow
def test_the_oldest_go_when_they_are_too_many_bytes(client: Any) -> None:
    kept = [keep(client, "c", JOB) for _ in range(300)]
    large = Job("job.b", 1, "thumbs", encode_state({"data": b"x" * (1 << 20)}))
    kept += [keep(client, "c", large) for _ in range(70)]
    assert DEAD_LETTER_BYTES - (3 << 20) < used(client) <= DEAD_LETTER_BYTES
    left = [id.decode() for id, _ in client.xrange(Keys("shop").dead)]
    assert left == kept[-len(left) :]
    kept += [keep(client, "c", JOB) for _ in range(100)]
    assert used(client) <= DEAD_LETTER_BYTES
    assert client.xrange(Keys("shop").dead)[-1][0].decode() == kept[-1]


@pytest.mark.slow
def test_a_letter_larger_than_all_may_be_keeps_its_head_and_says_so(letters: DeadLetters, client: Any) -> None:
    keep(client, JOB.channel, JOB)
    huge = Receive("i/2", 7, 3, SOCKET, b"", [b"x" * (DEAD_LETTER_BYTES + 1)], 40)
    id = keep(client, "websocket.receive", huge, "workers died")
    size = len(encode(huge)[1])
    assert f"workers died; of its {size} bytes the first 65536 are kept" in letters.one(id).line
    assert len(list(letters.all())) == 2, "the others need not go for it"
    assert used(client) < 1 << 20


@pytest.mark.slow
def test_what_a_worker_died_of_keeps_to_the_same_bounds(client: Any) -> None:
    """The script that releases a dead worker's jobs writes letters too."""
    keys, large = Keys("shop"), Job("job.b", 1, "thumbs", encode_state({"data": b"x" * (1 << 20)}))
    stream = keys.channel("background.thumbs")
    client.sadd(keys.channels, stream)
    client.xgroup_create(stream, "workers", "0", mkstream=True)
    for _ in range(0, 70, 10):
        for _ in range(10):
            client.xadd(stream, entry(large, retries=2))
        client.xreadgroup("workers", "h.1.aa.0", {stream: ">"})
        assert reap(client, keys, "worker/h.1.aa", seen=True) == 10
    assert DEAD_LETTER_BYTES - (3 << 20) < used(client) <= DEAD_LETTER_BYTES
    assert client.xrevrange(keys.dead, count=1)[0][1][b"reason"] == b"3 workers died of it"


def test_a_release_goes_on_where_dead_letters_cannot_be_kept(client: Any) -> None:
    keys, stream = Keys("shop"), Keys("shop").channel("background.thumbs")
    client.set(keys.dead, "somebody else's")
    client.sadd(keys.channels, stream)
    client.xgroup_create(stream, "workers", "0", mkstream=True)
    for number in range(3):
        client.xadd(stream, entry(replace(JOB, id=f"job.{number}"), retries=2))
    client.xreadgroup("workers", "h.1.aa.0", {stream: ">"})
    assert reap(client, keys, "worker/h.1.aa", seen=True) == 3
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        keep(client, JOB.channel, JOB)


SECRETS = [b"cookie", b"Authorization", b"proxy-authorization", b"set-cookie", b"x-api-key", b"x-auth-token"]


@pytest.mark.parametrize("name", SECRETS)
def test_secret_headers_are_neither_kept_nor_shown(name: bytes, letters: DeadLetters, client: Any) -> None:
    secret = [(b"x-name", b"bob"), (name, b"hunter2"), (name, b"hunter3")]
    scope = replace(REQUEST.scope, headers=secret)
    sockets = encode_scope(replace(decode_scope(SOCKET), headers=secret))
    for event in (replace(REQUEST, scope=scope), replace(RECEIVE, scope=sockets)):
        keep(client, event.channel, event)
    for _, fields in client.xrange(Keys("shop").dead):
        assert b"hunter" not in b"".join(fields.values())
        assert b"bob" in b"".join(fields.values()), "the others stay"
    client.xadd(Keys("shop").dead, entry(replace(REQUEST, scope=scope), channel="c", reason="r"))
    texts = [letter.text for letter in letters.all()]
    assert "hunter" not in "".join(texts), "an older release has kept it"
    assert texts[0].splitlines()[2:5] == ["x-name: bob", f"{name.decode()}: ***", f"{name.decode()}: ***"]
    assert texts[2].splitlines()[2:] == texts[0].splitlines()[2:]


def test_a_letter_without_secrets_is_kept_as_it_came(client: Any) -> None:
    """A newer version's fields too, which only it can read."""
    newer = msgspec.msgpack.encode([*msgspec.msgpack.decode(encode(REQUEST)[1]), "new"])
    client.execute_command(*dead_letter_command(Keys("shop"), "c", newer, "r"))
    ((_, fields),) = client.xrange(Keys("shop").dead)
    assert fields[b"%d" % VERSION] == newer


FOREIGN: list[dict[Any, Any]] = [
    {"x": "y"},
    {"channel": "c", "reason": "r"},
    {f"{VERSION}": encode(JOB)[1]},
    {f"{VERSION}": encode(JOB)[1], "channel": b"\xff\x00", "reason": b"\x1b[2J\nhello"},
    {b"\xff": os.urandom(100), b"\x00": b""},
    {f"{VERSION}": b"", "channel": "", "reason": ""},
    {f"{VERSION}": encode(replace(REQUEST, scope=replace(REQUEST.scope, path="/\x1b[2J\n")))[1]},
]


def test_entries_of_anybody_spoil_none_but_themselves(
    url: str, letters: DeadLetters, ids: list[str], client: Any
) -> None:
    """A9's siblings: wrong fields, missing ones, random bytes, ids beyond any date."""
    foreign = [client.xadd(Keys("shop").dead, fields).decode() for fields in FOREIGN]
    last = "18446744073709551615-18446744073709551615"
    client.xadd(Keys("shop").dead, FOREIGN[0], id=last)
    everything = [*ids, *foreign, last]
    where = ("--redis", url, "--name", "shop")
    listed = run("list", *where)
    assert listed.exit_code == 0
    assert [line.split("  ")[0] for line in listed.output.splitlines()] == everything
    assert "\x1b" not in listed.output
    for id in everything:
        shown = run("show", id, *where)
        assert (shown.exit_code, shown.output.split("  ")[0]) == (0, id)
        assert "\x1b" not in shown.output
    assert run("requeue", *where).output == "2 sent again\n", "those that are jobs"
    assert run("purge", foreign[0], *where).output == "1 deleted\n"
    assert run("purge", *where).output == f"{len(everything) - 3} deleted\n"
    assert run("list", *where).output == "no dead letters\n"


@pytest.fixture
def many(client: Any) -> int:
    """An older release has kept more bytes than one reads at once."""
    job = Job("job.b", 3, "thumbs", encode_state({"data": b"x" * (256 << 10)}))
    for _ in range(200):
        client.xadd(Keys("shop").dead, entry(job, channel=job.channel, reason="r"))
    return 200


def walk(letters: DeadLetters) -> int:
    return sum(1 for letter in letters.all() if letter.line)


@pytest.mark.slow
@pytest.mark.parametrize("command", [walk, lambda letters: letters.purge(()), lambda letters: letters.requeue(())])
def test_letters_are_read_a_few_at_a_time(
    command: Callable[[DeadLetters], int], letters: DeadLetters, many: int
) -> None:
    tracemalloc.start()
    try:
        assert command(letters) == many
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 << 20, "of the 50 MiB that stand there"


def test_what_is_given_up_meanwhile_is_not_read_for_ever(letters: DeadLetters, client: Any) -> None:
    """A requeued job whose workers die at once is a letter again."""
    for _ in range(40):
        keep(client, JOB.channel, JOB)
    seen = 0
    for _ in letters.all():
        keep(client, JOB.channel, JOB)
        seen += 1
    assert seen == 40
    assert letters.purge(()) == 80


def test_a_job_whose_channel_refuses_it_stays_a_dead_letter(letters: DeadLetters, client: Any) -> None:
    keep(client, JOB.channel, JOB)
    client.set(Keys("shop").channel("background.thumbs"), "somebody else's")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        letters.requeue(())
    assert len(list(letters.all())) == 1


def test_a_reader_that_leaves_ends_the_list_quietly(url: str, client: Any) -> None:
    with client.pipeline() as pipe:
        for _ in range(3000):
            pipe.execute_command(*dead_letter_command(Keys("shop"), JOB.channel, encode(JOB)[1], "r" * 100))
        pipe.execute()
    arguments = (sys.executable, "-m", "asgictl", "dead-letters", "list", "--redis", url, "--name", "shop")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert b"background.thumbs" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert (process.returncode, said) == (1, b"")


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:1", "redis://:hunter2/@127.0.0.1:1", "http://hunter2"])
def test_a_redis_that_cannot_be_had_is_an_error_without_its_password(url: str) -> None:
    with pytest.raises(RedisError) as caught:
        list(DeadLetters(url, "shop").all())
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
