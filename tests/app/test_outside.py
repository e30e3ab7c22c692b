"""Sends from outside of any event, on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgictl.app import outside
from asgictl.app.application import Application, manifest_of
from asgictl.app.outside import Sender, StandIn
from asgictl.app.sending import Channel, Group
from asgictl.config import CHANNEL_BYTES
from asgictl.errors import ChannelFull, ConsumerError, RedisError, UnknownChannel
from asgictl.layers.redis import sync_client
from asgictl.layers.redis.keys import Keys
from asgictl.machine.run_dir import DESCRIPTION, RunDir
from asgictl.wire.manifest import encode_manifest
from asgictl.wire.messages import Broadcast, Job, Sent, decode_broadcast, decode_event
from asgictl.wire.state import decode_state
from tests.conftest import until
from tests.plain import TEXTS, Number

KEYS = Keys("shop")
THUMBS = KEYS.channel("background.thumbs")


@pytest.fixture(autouse=True)
def _here(url: str, client: Any, real_sends: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ASGICTL_REDIS", url)
    monkeypatch.setenv("ASGICTL_NAME", "shop")
    yield
    client.flushall()
    sync_client._client.cache_clear()


def test_a_script_sends_to_groups_and_channels_at_once(client: Any) -> None:
    Group("g").send(text="x")
    Channel("thumbs").send({"id": 5})
    ((_, fields),) = client.xrange(KEYS.broadcast)
    assert decode_broadcast(*next(iter(fields.items()))) == Broadcast("g", "x")
    ((_, fields),) = client.xrange(THUMBS)
    job = decode_event(*next(iter(fields.items())))
    assert isinstance(job, Job)
    assert (job.name, job.attempt, decode_state(job.content)) == ("thumbs", 1, {"id": 5})


def test_a_delayed_message_waits_by_redis_clock(client: Any) -> None:
    seconds, microseconds = client.time()
    Channel("thumbs").send({"id": 5}, delay_seconds=30)
    assert client.xlen(THUMBS) == 0
    ((_, due),) = client.zrange(KEYS.delayed("background.thumbs"), 0, -1, withscores=True)
    assert due >= seconds * 1000 + microseconds / 1000 + 30_000


def test_a_channel_that_the_newest_release_has_not_is_refused(client: Any) -> None:
    application = Application(background={"thumbs": lambda message: None, "mail": lambda message: None})
    client.set(KEYS.manifest, encode_manifest(manifest_of(application, "1")))
    Channel("mail").send({})
    with pytest.raises(UnknownChannel, match="no background channel 'mails', it has mail, thumbs"):
        Channel("mails").send({})
    assert not client.exists(KEYS.channel("background.mails"))


def test_a_full_channel_takes_no_more_those_that_are_delayed_included(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "CHANNEL_CAPACITY", 3)
    for delay in (0, 60, 0):
        Channel("thumbs").send({}, delay_seconds=delay)
    with pytest.raises(ChannelFull, match="'thumbs' holds 3"):
        Channel("thumbs").send({})
    Channel("mail").send({})
    assert (client.xlen(THUMBS), client.zcard(KEYS.delayed("background.thumbs"))) == (2, 1)


MEGABYTE = {"data": b"x" * ((1 << 20) - 100)}


@pytest.mark.parametrize("delay", [0, 60])
def test_a_channel_is_full_too_when_its_messages_are_too_many_bytes(client: Any, delay: int) -> None:
    """Many small ones before hide nothing, as they would from a sample."""
    for _ in range(600):
        client.xadd(THUMBS, {"1": b"x" * 4000})
    with pytest.raises(ChannelFull, match="'thumbs' holds 64 MiB and takes no more"):
        fill(delay)
    delayed = KEYS.delayed("background.thumbs")
    held = client.memory_usage(THUMBS, samples=0) + (client.memory_usage(delayed, samples=0) or 0)
    assert CHANNEL_BYTES - (2 << 20) < held <= CHANNEL_BYTES + (1 << 20)
    Channel("thumbs").send({"small": 1})
    Channel("mail").send(MEGABYTE)
    client.delete(THUMBS, delayed)
    until(lambda: is_taken(MEGABYTE), "room is known of within a second")


def fill(delay: float) -> None:
    for _ in range(70):
        Channel("thumbs").send(MEGABYTE, delay_seconds=delay)


def is_taken(content: dict[str, Any]) -> bool:
    try:
        Channel("thumbs").send(content)
    except ChannelFull:
        return False
    return True


@pytest.mark.parametrize("note", [b"nonsense", b"9 9", b"1e300", None])
def test_what_somebody_writes_over_a_channels_weight_spoils_nothing(note: bytes | None, client: Any) -> None:
    key = KEYS.weight("background.thumbs")
    client.set(key, note) if note else client.lpush(key, b"x")
    Channel("thumbs").send({})
    assert int(client.get(key).split()[1]) > 0
    assert 0 < client.pttl(key) <= 2000


@pytest.mark.parametrize("address", ["redis://:hunter2@127.0.0.1:1", "redis://:hunter2/@127.0.0.1:1", "http://hunter2"])
def test_a_redis_that_cannot_be_had_is_an_error_without_its_password(address: str) -> None:
    with pytest.raises(RedisError) as caught:
        Sender(address, "shop").send(Broadcast("g", "x"))
    assert "hunter2" not in str(caught.value)


def cyclic() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["itself"] = content
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "must be a dict, not list"),
        ({"x": object()}, "cannot be encoded"),
        ({"x": 1 << 70}, "cannot be encoded"),
        ({"x": "\ud800"}, "cannot be encoded"),
        ({1: "x"}, "cannot be encoded"),
        (cyclic(), "cannot be encoded"),
        ({"x": "x" * (1 << 20)}, "the limit is 1048576"),
    ],
    ids=["list", "object", "number", "surrogate", "key", "cycle", "size"],
)
def test_content_that_cannot_travel_is_refused_and_says_why(content: Any, said: str, client: Any) -> None:
    with pytest.raises(ConsumerError, match=said):
        Channel("thumbs").send(content)
    assert client.xlen(THUMBS) == 0


@pytest.mark.parametrize("delay", [-0.1, float("nan"), 1e9, "30"])
def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    with pytest.raises(ConsumerError, match="number of seconds"):
        Channel("thumbs").send({}, delay_seconds=delay)


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_script_sends_is_plain(client: Any, text: str) -> None:
    Group(text).send(text=text)
    Channel("thumbs").send({text: text, "n": Number(7)})
    ((_, fields),) = client.xrange(KEYS.broadcast)
    assert decode_broadcast(*next(iter(fields.items()))) == Broadcast("hello", "hello")
    ((_, fields),) = client.xrange(THUMBS)
    job = decode_event(*next(iter(fields.items())))
    assert isinstance(job, Job)
    assert decode_state(job.content) == {"hello": "hello", "n": 7}


def test_another_may_have_what_is_sent_and_asked_until_the_one_before_has_it_again() -> None:
    taken: list[Sent] = []
    stand_in = StandIn(taken.append, str.encode)
    before = outside.use(stand_in)
    try:
        Group("room").send(text="hello")
        assert outside.record("id") == b"id"
    finally:
        assert outside.use(before) is stand_in
    assert [type(sent).__name__ for sent in taken] == ["Broadcast"]
    assert outside.record("id") is None


def test_without_a_redis_it_is_said_what_to_set_also_where_something_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASGICTL_REDIS")
    wanted = r"^outside of asgictl .* set ASGICTL_REDIS .*no instance 'shop' is running"
    with pytest.raises(RedisError, match=wanted):
        Group("room").send(text="hello")
    with pytest.raises(RedisError, match=wanted):
        outside.record("id")


def run(place: Path, name: str, redis: str = "embedded") -> None:
    """Make the run directory of an instance; it is described as one that runs."""
    run_dir = RunDir(place / "asgictl" / name)
    run_dir.create()
    run_dir.write(DESCRIPTION, json.dumps({"redis": redis}))


def test_without_a_name_a_script_means_the_only_instance_as_commands_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGICTL_REDIS")
    monkeypatch.delenv("ASGICTL_NAME")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(RedisError, match="no instance 'default' is running; start one"):
        Sender.of_environment()
    run(tmp_path, "shop")
    with pytest.raises(RedisError, match=rf"connecting to {tmp_path}/asgictl/shop/redis.sock"):
        Group("room").send(text="hello")
    run(tmp_path, "blog")
    with pytest.raises(RedisError, match=r"ASGICTL_NAME to an instance .*several instances run here: blog, shop"):
        Sender.of_environment()
    monkeypatch.setenv("ASGICTL_NAME", "news")
    with pytest.raises(RedisError, match="no instance 'news' is running; running: blog, shop"):
        Sender.of_environment()
    monkeypatch.setenv("ASGICTL_NAME", "blog")
    with pytest.raises(RedisError, match=rf"connecting to {tmp_path}/asgictl/blog/redis.sock"):
        Group("room").send(text="hello")


def test_with_a_redis_but_no_name_it_is_the_default_instance_whatever_runs_here(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGICTL_NAME")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run(tmp_path, "shop")
    Group("room").send(text="hello")
    assert client.exists(Keys("default").broadcast)
