"""What groups and background channels take, and where it lands."""

from typing import Any

import pytest

from asgictl.app.application import Application
from asgictl.app.outcome import Outcome
from asgictl.app.sending import Channel, Group
from asgictl.config import CHANNEL_BYTES, CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, ConsumerError, RedisError, UnknownChannel
from asgictl.wire.messages import Broadcast, Frames, Sent


@pytest.mark.parametrize("name", ["", "x" * 101, None, b"x"])
def test_a_group_is_named_by_1_to_100_characters(name: Any) -> None:
    with pytest.raises(ConsumerError, match="1 to 100"):
        Group(name)


def test_a_groups_frame_waits_for_the_commit() -> None:
    outcome = Outcome()
    with outcome:
        Group("g").send(text="x")
        Group("g").send(data=b"x")
    assert outcome.sends == [Broadcast("g", "x"), Broadcast("g", b"x")]


def test_a_groups_frame_says_what_becomes_of_it_at_a_slow_member() -> None:
    outcome, wrong = Outcome(), "wait"
    with outcome:
        Group("g").send(text="x", if_slow="drop")
        Group("g").send(text="y", if_slow="close")
        with pytest.raises(ConsumerError, match="'close' or 'drop', not 'wait'"):
            Group("g").send(text="z", if_slow=wrong)  # type: ignore[arg-type]
    assert outcome.sends == [Broadcast("g", "x", may_drop=True), Broadcast("g", "y")]


def test_a_send_outside_of_an_event_without_a_redis_says_what_to_set(
    real_sends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGICTL_REDIS", raising=False)
    monkeypatch.setenv("ASGICTL_NAME", "nobody-runs-this")
    said = r"outside of asgictl \(a script, a test, a shell, `flask run`\) .*set ASGICTL_REDIS"
    with pytest.raises(RedisError, match=said):
        Group("g").send(text="x")
    with pytest.raises(RedisError, match="set ASGICTL_REDIS"):
        Channel("c").send({})


def test_a_groups_frame_that_cannot_wait_leaves_at_once() -> None:
    sent: list[Frames | Sent] = []
    outcome = Outcome(sent.append)
    with outcome:
        Group("g").send(text="x", immediately=True)
    assert (sent, outcome.sends) == ([Broadcast("g", "x")], [])


def test_a_handler_cannot_send_more_bytes_than_a_channel_holds() -> None:
    application = Application(background={"a": print})
    outcome, content = Outcome(depths=application.depths), {"data": b"x" * 1000}
    with outcome:
        application.depths.bytes["a"] = CHANNEL_BYTES - 3000
        for _ in range(2):
            Channel("a").send(content)
        with pytest.raises(ChannelFull, match="'a' holds 64 MiB"):
            Channel("a").send(content)
        Channel("a").send({})
    assert (len(outcome.sends), application.depths) == (3, {"a": 3})


def test_a_handler_cannot_send_to_a_channel_that_is_unknown_or_full() -> None:
    application = Application(background={"a": print})
    outcome = Outcome(depths=application.depths)
    with outcome:
        with pytest.raises(UnknownChannel, match="no background channel 'b', it has a"):
            Channel("b").send({})
        application.depths["a"] = CHANNEL_CAPACITY - 2
        Channel("a").send({})
        Channel("a").send({}, delay_seconds=1)
        with pytest.raises(ChannelFull, match="'a' holds 10000"):
            Channel("a").send({}, delay_seconds=1)
    assert len(outcome.sends) == 2
