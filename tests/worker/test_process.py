"""What a worker consumes."""

from typing import Any

import pytest

from asgictl.app.application import Application, path
from asgictl.config import WorkerConfig
from asgictl.errors import TargetError
from asgictl.worker.process import channels_of, consumed, runs_side_by_side, websockets_of


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Serves nothing here."""


def consumer(message: Any) -> None:
    """Does nothing."""


async def async_consumer(message: Any) -> None:
    """Does nothing."""


def test_a_worker_reads_only_the_channels_that_its_application_has_a_use_for() -> None:
    routes = [path("/a", receive=consumer), path("/b", connect=consumer, receive=consumer)]
    assert channels_of(Application(http=wsgi), "t") == ["http.request"]
    assert channels_of(Application(websocket=routes), "t") == ["websocket.connect", "websocket.receive"]
    parting = Application(websocket=[path("/c", disconnect=consumer)])
    assert channels_of(parting, "t") == ["websocket.connect", "websocket.disconnect"], "a connect leaves the last will"
    assert len(channels_of(Application(http={"/": wsgi, "/async": asgi}, websocket=routes), "t")) == 3


def test_an_asgi_application_has_its_requests_or_its_handshakes() -> None:
    assert channels_of(Application(http=asgi), "t") == ["http.request"]
    assert channels_of(Application(websocket=asgi), "t") == ["websocket.connect"]


@pytest.mark.parametrize(
    ("application", "kind", "side_by_side"),
    [
        (Application(http=wsgi), "none", False),
        (Application(http={"/": wsgi, "/async": asgi}), "none", True),
        (Application(http=wsgi, websocket=asgi), "ASGI", True),
        (Application(websocket=[path("/a", receive=consumer)]), "consumers", False),
        (Application(websocket=[path("/a", receive=async_consumer)]), "consumers", True),
    ],
)
def test_what_may_run_side_by_side_is_what_is_async(application: Application, kind: str, side_by_side: bool) -> None:
    assert (websockets_of(application), runs_side_by_side(application)) == (kind, side_by_side)


@pytest.mark.parametrize("application", [Application(), Application({})])
def test_an_application_that_serves_nothing_is_refused_by_name(application: Application) -> None:
    with pytest.raises(TargetError, match="'site:app'"):
        channels_of(application, "site:app")


def test_a_pool_has_channels_of_its_own_for_what_its_paths_want() -> None:
    routes = [path("/a", receive=consumer), path("/b", disconnect=consumer, pool="slow")]
    assert channels_of(Application(http=wsgi, websocket=routes, pools={"/x": "big", "/y": "big"}), "t") == [
        "http.request",
        "http.request.big",
        "websocket.connect.slow",
        "websocket.disconnect.slow",
        "websocket.receive",
    ]
    assert channels_of(Application(websocket=routes[:1], pools={"/x": "big"}), "t") == ["websocket.receive"]


def test_background_channels_are_channels_that_globs_can_tell_apart() -> None:
    application = Application(http=wsgi, background={"b": consumer, "a": consumer})
    channels = channels_of(application, "t")
    assert channels == ["http.request", "background.a", "background.b"], "requests are read first"
    config = WorkerConfig("n", "redis://h", "t", only=("background.*",), exclude=("*.a",))
    assert consumed(channels, config) == ["background.b"]
    assert channels_of(Application(background={"a": consumer}), "t") == ["background.a"]
    assert not runs_side_by_side(application)
    assert runs_side_by_side(Application(background={"a": async_consumer}))


CHANNELS = ["http.request", "http.request.slow", "websocket.receive", "websocket.receive.slow"]


@pytest.mark.parametrize(
    ("only", "exclude", "left"),
    [
        (("*",), (), CHANNELS),
        (("*.slow",), (), ["http.request.slow", "websocket.receive.slow"]),
        (("*",), ("*.slow",), ["http.request", "websocket.receive"]),
        (("http.*", "websocket.receive"), ("*.slow",), ["http.request", "websocket.receive"]),
        (("http.request",), (), ["http.request"]),
    ],
)
def test_of_its_channels_a_worker_consumes_those_that_globs_leave(
    only: tuple[str, ...], exclude: tuple[str, ...], left: list[str]
) -> None:
    assert consumed(CHANNELS, WorkerConfig("n", "r", "site:app", only=only, exclude=exclude)) == left


@pytest.mark.parametrize(("only", "exclude"), [(("*.fast",), ()), (("*",), ("*",)), (("HTTP.*",), ())])
def test_globs_that_leave_nothing_are_refused_with_what_there_is(
    only: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    with pytest.raises(TargetError, match=r"leave nothing of what TARGET 'site:app' has: http\.request, "):
        consumed(CHANNELS, WorkerConfig("n", "r", "site:app", only=only, exclude=exclude))
