"""What a user declares."""

from typing import Any

import pytest

from asgictl.app.application import Application, path
from asgictl.errors import TargetError
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
    with pytest.raises(TargetError, match="prefix must start with /"):
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


@pytest.mark.parametrize(
    "background", [{"a b": consumer}, {"": consumer}, {"x" * 100: consumer}, {"a": 1}, {1: consumer}]
)
def test_a_background_channel_has_a_name_and_a_consumer(background: Any) -> None:
    with pytest.raises(TargetError, match="background="):
        Application(background=background)


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
