"""examples/fastapi_app.py in both modes."""

import hashlib
import json
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
from websockets.sync.client import connect

from tests.conftest import MODES, Machine, new_machine, until
from tests.examples.conftest import EXAMPLES, Visitor
from tests.scenarios.test_demo import SECONDS


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with new_machine() as made:
        made.directory = EXAMPLES.parent
        made.start("examples.fastapi_app:app", "--mode", request.param, "--workers", "1")  # listeners are a process's
        made.mode = request.param
        yield made


@pytest.fixture
def visitor(site: Machine) -> Visitor:
    return Visitor(site.url)


def event(stream: HTTPResponse) -> list[str]:
    """Read one event of a stream, to its empty line."""
    lines = []
    while line := stream.readline().decode().rstrip("\n"):
        lines.append(line)
    return lines


def publish(visitor: Visitor, text: str) -> int:
    """Publish; returns how many heard it."""
    listeners: int = json.loads(visitor.post(f"/publish?text={text}"))["listeners"]
    return listeners


def test_an_event_arrives_before_the_next_one_exists(visitor: Visitor) -> None:
    with visitor.open("/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert event(stream) == ["event: listening"]
        for number in range(20):
            publish(visitor, str(number))
            assert event(stream) == ["event: news", f"data: {number}"]


def test_every_listener_hears_everything_in_order(visitor: Visitor) -> None:
    with visitor.open("/events") as one, visitor.open("/events") as other:
        for stream in (one, other):
            event(stream)
        for number in range(50):
            assert publish(visitor, str(number)) >= 2
        for stream in (one, other):
            assert [event(stream)[1] for _ in range(50)] == [f"data: {number}" for number in range(50)]


def test_a_stream_ends_when_its_client_leaves(visitor: Visitor) -> None:
    with visitor.open("/events") as stream:
        event(stream)
        assert publish(visitor, "x") >= 1
    until(lambda: publish(visitor, "x") == 0, "nobody listens any more")


def test_a_websocket_echoes_in_order(site: Machine) -> None:
    frames = [f"{number}·" for number in range(200)] + ["", "x" * 100_000]
    with connect(site.ws + "/ws/echo") as ws:
        for frame in frames:
            ws.send(frame)
        assert [ws.recv(SECONDS) for _ in frames] == frames


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_an_upload_arrives_whole(visitor: Visitor, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert json.loads(visitor.upload("/upload", "a.bin", content)) == {
        "name": "a.bin",
        "bytes": size,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_what_the_framework_answers_itself(visitor: Visitor) -> None:
    assert json.loads(visitor.get("/openapi.json"))["paths"]
    assert visitor.refused("/publish", b"") == 422
    assert visitor.refused("/nowhere") == 404
