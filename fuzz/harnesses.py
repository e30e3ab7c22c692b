"""The harnesses: what is drawn, and what is checked."""

import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fuzz import corpus, edge, wire
from fuzz.strategies import frames, mutated, mutated_message, places

CUTS = 6  # of each input that is kept
Draw = Callable[[st.SearchStrategy[Any]], Any]
Input = tuple[bytes, Callable[[], None]]  # what is kept if it fails, and its check


def http(draw: Draw, kept: list[bytes]) -> Input:
    """Draw requests, and handshakes with frames behind them."""
    data = draw(mutated(kept))
    where, half_closes, is_slow = draw(places), draw(st.booleans()), draw(st.sampled_from([False, False, False, True]))
    return data, lambda: edge.check(data, where, half_closes=half_closes, is_slow=is_slow)


def websocket(draw: Draw, _kept: list[bytes]) -> Input:
    """Draw frames behind a handshake."""
    data, path = draw(frames), draw(st.sampled_from([b"/ws", b"/ws", b"/hold", b"/bye"]))
    where, half_closes = draw(places), draw(st.booleans())
    return edge.handshake(path) + data, lambda: edge.check_socket(data, where, half_closes=half_closes, path=path)


def messages(draw: Draw, kept: list[bytes]) -> Input:
    """Draw what may stand in Redis."""
    data = draw(mutated_message(kept) | st.binary(max_size=60))
    return data, lambda: wire.check(data)


HARNESSES = {"http": ("edge", http), "websocket": ("edge", websocket), "wire": ("wire", messages)}


def check_kept(kind: str, data: bytes) -> None:
    """Check an input of the corpus, cut in some ways."""
    if kind == "wire":
        wire.check(data)
        return
    chance = random.Random(data)  # noqa: S311 - the same cuts each time
    for number in range(CUTS):
        some = [chance.randrange(len(data) + 1) for _ in range(chance.randrange(5))]
        edge.check(data, some, half_closes=number % 2 == 0, is_slow=number % 3 == 2)
    edge.check(data, range(1, len(data), max(1, len(data) // 300)))


def kept_of(kind: str) -> list[bytes]:
    """Return the corpus of a kind."""
    return [*corpus.load(kind).values()]
