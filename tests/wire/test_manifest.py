"""What an interface knows of the application."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from asgictl.app.application import Application, manifest_of, path
from asgictl.app.target import asgi_mounts
from asgictl.errors import WireError
from asgictl.wire.manifest import Manifest, Path, Router, encode_manifest, event_channels
from asgictl.wire.messages import VERSION


def consumer(message: object) -> None:
    """Does nothing."""


def test_a_manifest_tells_which_events_a_consumer_wants() -> None:
    routes = [path("/a", connect=consumer, receive=consumer), path("/b", disconnect=consumer)]
    manifest = manifest_of(Application(websocket=routes), "r1")
    assert manifest == Manifest(VERSION, "r1", False, [Path("/a", True, True, False), Path("/b", True, False, True)])


def test_a_manifest_names_background_channels_and_an_older_one_none() -> None:
    manifest = manifest_of(Application(background={"b": consumer, "a": consumer}), "r1")
    assert manifest.background == ["a", "b"]
    older = msgpack.encode(msgpack.decode(encode_manifest(manifest))[:-2])
    assert Router.decode(older).manifest.background == []


def test_a_manifest_tells_the_channels_of_the_events() -> None:
    def site(environ: object, start_response: object) -> list[bytes]:
        return []

    async def asgi(scope: object, receive: object, send: object) -> None:
        """Serves nothing."""

    routes = [path("/a", receive=consumer), path("/b", disconnect=consumer, pool="live")]
    application = Application(http=site, websocket=routes, background={"job": consumer}, pools={"/reports": "slow"})
    assert event_channels(manifest_of(application, "")) == {
        *("http.request", "http.request.slow", "websocket.receive", "background.job"),
        *("websocket.connect.live", "websocket.disconnect.live"),
    }
    assert event_channels(manifest_of(Application(websocket=asgi), "")) == {"websocket.connect"}


def test_a_manifest_survives_the_wire() -> None:
    manifest = manifest_of(Application(http=lambda environ, start_response: [], websocket=[path("/{x}")]), "r1")
    assert Router.decode(encode_manifest(manifest)).manifest == manifest


def test_the_first_path_that_matches_counts() -> None:
    first, second = Path("/ws/{room}", True, True, False), Path("/ws/x", False, False, False)
    router = Router(Manifest(VERSION, "r1", True, [first, second]))
    assert router.match("/ws/x") is first
    assert router.match("/ws/x/y") is None


@given(st.binary(max_size=60))
def test_bytes_that_are_no_manifest_are_a_wire_error(value: bytes) -> None:
    with pytest.raises(WireError):
        Router.decode(value)


@pytest.mark.parametrize("version", [VERSION - 2, VERSION + 2])
def test_a_version_that_is_not_adjacent_is_named(version: int) -> None:
    with pytest.raises(WireError, match=f"{version}, ours is {VERSION}"):
        Router.decode(encode_manifest(Manifest(version, "r1", True, [])))


def test_a_pattern_that_this_release_cannot_compile_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        Router.decode(encode_manifest(Manifest(VERSION + 1, "r2", True, [Path("/{a}/{a}", True, True, True)])))


def test_a_manifest_tells_the_pools_and_which_paths_are_run_at_most_once() -> None:
    routes = [path("/a", receive=consumer, pool="slow"), path("/b", receive=consumer, at_most_once=True)]
    application = Application(http=lambda environ, start_response: [], websocket=routes, pools={"/": "", "/api": "big"})
    router = Router.decode(encode_manifest(manifest_of(application, "r1")))
    assert [(found.pool, found.at_most_once) for found in router.manifest.websocket] == [(".slow", False), ("", True)]
    assert [router.pool(asked) for asked in ("/", "/apis", "/api", "/api/x")] == ["", "", ".big", ".big"]


def test_without_pools_every_request_goes_to_the_one_channel() -> None:
    assert Router(manifest_of(Application(), "r1")).pool("/") == ""


def test_a_manifest_of_a_release_that_knew_no_pools_is_read() -> None:
    old = msgpack.encode((VERSION, "r0", True, [("/a", True, True, False)]))
    assert Router.decode(old).manifest == Manifest(VERSION, "r0", True, [Path("/a", True, True, False)])


def test_a_manifest_says_which_paths_asgi_serves_as_the_application_mounts_them() -> None:
    async def asgi(scope: object, receive: object, send: object) -> None: ...

    def wsgi(environ: object, start_response: object) -> None: ...

    mixes: list[dict[str, Any]] = [{"/": wsgi, "/socket.io": asgi}, {"/": asgi, "/old": wsgi}, {"/api": asgi}]
    for mixed in mixes:
        application = Application(http=mixed)
        router = Router(manifest_of(application, "r1", asgi_mounts(application)))
        for asked in ("/", "/socket.io/x", "/old/x", "/api", "*", "/other"):
            assert router.is_asgi(asked) is (application.mount(asked) is asgi)
    assert asgi_mounts(Application(http=wsgi)) == {}
