"""examples/flask_app.py in both modes."""

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.conftest import MODES, Machine, new_machine
from tests.examples.conftest import EXAMPLES, Visitor


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with new_machine() as made:
        made.directory = EXAMPLES.parent
        made.start("examples.flask_app:app", "--mode", request.param, "--workers", "1", "--threads", "1")
        made.mode = request.param
        yield made


@pytest.fixture
def visitor(site: Machine) -> Visitor:
    return Visitor(site.url)


def test_the_session_cookie_remembers_what_the_form_said(site: Machine, visitor: Visitor) -> None:
    assert "Hello, stranger!" in visitor.get("/")
    assert "Hello, Zoë!" in visitor.post("/", name="Zoë")  # after a redirect
    assert "Hello, Zoë!" in visitor.get("/")
    assert "Hello, stranger!" in Visitor(site.url).get("/")


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_an_upload_arrives_whole(visitor: Visitor, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = json.loads(visitor.upload("/upload", "a.bin", content))
    assert answer == {"name": "a.bin", "sha256": hashlib.sha256(content).hexdigest()}


def test_lines_arrive_while_the_response_goes_on_and_it_ends_when_the_client_leaves(visitor: Visitor) -> None:
    with visitor.open("/ticks") as stream:
        assert [stream.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    assert "Hello" in visitor.get("/")  # by the only thread, which was taken


def test_what_the_framework_answers_itself(visitor: Visitor) -> None:
    assert visitor.refused("/upload", b"") == 400
    assert visitor.refused("/ticks", b"") == 405
    assert visitor.refused("/nowhere") == 404
