"""What a user declares."""

from typing import Any

import pytest

from asgictl.app.application import Application, Channel, Group, path
from asgictl.app.outcome import Outcome
from asgictl.config import CHANNEL_CAPACITY
from asgictl.errors import ChannelFull, ConsumerError, RedisError, TargetError, UnknownChannel
from asgictl.wire.messages import Broadcast, Frames, Sent
from asgictl.wire.routing import compile_pattern


def view(environ: Any, start_response: Any) -> list[bytes]:
    return []


def other(environ: Any, start_response: Any) -> list[bytes]:
    return []


def consumer(message: Any) -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("pattern", "asked", "params"),
    [
        ("/ws/{room}", "/ws/a b", {"room": "a b"}),
        ("/ws/{room}", "/ws/", None),
        ("/ws/{room}", "/ws/a/b", None),
        ("/{a}/{b}", "/x/y", {"a": "x", "b": "y"}),
        ("/a.b", "/a.b", {}),
        ("/a.b", "/axb", None),
        ("/ws", "/ws/more", None),
        ("/{rest:path}", "/", {"rest": ""}),
        ("/a/{b}/{rest:path}", "/a/b/c/d/", {"b": "b", "rest": "c/d/"}),
        ("/a/{rest:path}", "/a", None),
    ],
)
def test_a_parameter_is_one_segment_and_all_else_is_literal(
    pattern: str, asked: str, params: dict[str, str] | None
) -> None:
    assert path(pattern).match(asked) == params


@pytest.mark.parametrize("pattern", ["ws", "", "/{a}/{a}", "/{1}", "/{a}/{a:path}"])
def test_a_malformed_pattern_is_named(pattern: str) -> None:
    with pytest.raises(TargetError) as caught:
        compile_pattern(pattern)
    assert repr(pattern) in str(caught.value)


def test_a_consumer_that_cannot_be_called_is_refused() -> None:
    wrong: Any = "join"
    with pytest.raises(TargetError, match=r"path\('/ws', connect=\.\.\.\)"):
        path("/ws", connect=wrong)


@pytest.mark.parametrize(
    ("asked", "served"), [("/", view), ("/x", view), ("/api", other), ("/api/x", other), ("/apis", view), ("*", view)]
)
def test_the_longest_prefix_of_whole_segments_serves(asked: str, served: Any) -> None:
    assert Application(http={"/": view, "/api": other}).mount(asked) is served


def test_a_path_that_nothing_is_mounted_on_is_served_by_nobody() -> None:
    assert Application(http={"/api": other}).mount("/") is None
    assert Application().mount("/") is None


@pytest.mark.parametrize("http", [{"api": view}, {"/": "view"}])
def test_a_mount_that_cannot_serve_is_refused(http: Any) -> None:
    with pytest.raises(TargetError, match="prefix starts with /"):
        Application(http=http)


def test_a_websocket_that_is_not_made_by_path_is_refused() -> None:
    wrong: Any = ["/ws"]
    with pytest.raises(TargetError, match=r"takes path\(\.\.\.\)"):
        Application(websocket=wrong)


def test_the_first_route_that_matches_counts() -> None:
    first, second = path("/ws/{a}", connect=consumer), path("/ws/x")
    application = Application(websocket=[first, second])
    assert application.route("/ws/x") == (first, {"a": "x"})
    assert application.route("/") is None


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


def test_a_send_outside_of_an_event_without_a_redis_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASGICTL_REDIS", raising=False)
    monkeypatch.setenv("ASGICTL_NAME", "nobody-runs-this")
    with pytest.raises(RedisError, match="set ASGICTL_REDIS"):
        Group("g").send(text="x")
    with pytest.raises(RedisError, match="set ASGICTL_REDIS"):
        Channel("c").send({})


def test_a_groups_frame_that_cannot_wait_leaves_at_once() -> None:
    sent: list[Frames | Sent] = []
    outcome = Outcome(sent.append)
    with outcome:
        Group("g").send(text="x", immediately=True)
    assert (sent, outcome.sends) == ([Broadcast("g", "x")], [])


@pytest.mark.parametrize(
    "background", [{"a b": consumer}, {"": consumer}, {"x" * 100: consumer}, {"a": 1}, {1: consumer}]
)
def test_a_background_channel_has_a_name_and_a_consumer(background: Any) -> None:
    with pytest.raises(TargetError, match="background="):
        Application(background=background)


def test_a_handler_cannot_send_to_a_channel_that_is_unknown_or_full() -> None:
    application = Application(background={"a": consumer})
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


@pytest.mark.parametrize(
    ("pool", "suffix"), [("", ""), ("slow", ".slow"), ("a-b_9", ".a-b_9"), ("x" * 32, "." + "x" * 32)]
)
def test_a_pool_is_a_suffix_of_channels(pool: str, suffix: str) -> None:
    assert path("/ws", pool=pool).pool == suffix
    assert Application(http=view, pools={"/": pool}).pools == {"/": suffix}


@pytest.mark.parametrize("pool", ["Slow", "a.b", "a b", "x" * 33, "é", "*"])
def test_a_pool_with_another_name_is_refused(pool: str) -> None:
    with pytest.raises(TargetError, match="pool="):
        path("/ws", pool=pool)
    with pytest.raises(TargetError, match="pool="):
        Application(http=view, pools={"/": pool})


def test_of_the_pools_of_a_path_the_longest_prefix_comes_first() -> None:
    pools = Application(http=view, pools={"/": "a", "/api/slow": "b", "/api": "c"}).pools
    assert list(pools) == ["/api/slow", "/api", "/"]


def test_a_path_may_repeat_unless_it_is_told_otherwise() -> None:
    assert not path("/ws").at_most_once
    assert path("/ws", at_most_once=True).at_most_once
