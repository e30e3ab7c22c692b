"""The corpus of fuzz/ passes, and so does a first draw of each harness; `make soak` draws for longer."""

import logging
from collections.abc import Iterator

import pytest

from fuzz import corpus
from fuzz.__main__ import run_round
from fuzz.edge import frames_of, handshake, response
from fuzz.harnesses import HARNESSES, check_kept
from fuzz.server import Server

KEPT = [(kind, name) for kind in ("edge", "wire") for name in corpus.load(kind)]


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """What is passed over is logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("kind", "name"), KEPT, ids=[f"{kind}-{name}" for kind, name in KEPT])
def test_an_input_that_is_kept_passes(kind: str, name: str) -> None:
    check_kept(kind, corpus.load(kind)[name])


@pytest.mark.parametrize("name", HARNESSES)
def test_a_first_draw_passes(name: str) -> None:
    checked, failed = run_round(name, 1, 40)
    assert checked >= 40
    assert failed is None


def test_what_is_framed_badly_is_noticed() -> None:
    with pytest.raises(AssertionError):
        response(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "GET", True)
    with pytest.raises(AssertionError, match="mask"):
        frames_of(b"\x81\x80\0\0\0\0")


def test_what_the_event_loop_is_told_is_raised() -> None:
    server = Server()
    server.feed([handshake(b"/ws")])
    server.loop.call_soon(lambda: 1 / 0)
    with pytest.raises(AssertionError):
        server.settle()
    server.loop.close()
