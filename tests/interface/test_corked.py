"""Writes that leave together."""

import asyncio
from collections.abc import Callable

from asgictl.interface.corked import Corked


class Transport:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


def told(*turns: Callable[[Corked], object]) -> list[bytes | str]:
    """Return what a transport is told when each of these is a turn of the event loop."""

    async def run() -> list[bytes | str]:
        transport = Transport()
        corked = Corked(transport)  # type: ignore[arg-type]
        for turn in turns:
            turn(corked)
            await asyncio.sleep(0)
        return transport.told

    return asyncio.run(run())


def write_two(corked: Corked) -> None:
    corked.write(b"a")
    corked.write(b"b")


def write_and_close(corked: Corked) -> None:
    write_two(corked)
    corked.close()


def test_what_is_written_in_one_turn_leaves_together_and_in_order() -> None:
    assert told(write_two) == [b"ab"]


def test_a_later_turn_writes_again() -> None:
    assert told(write_two, write_two) == [b"ab", b"ab"]


def test_what_was_written_leaves_before_the_end() -> None:
    assert told(write_and_close) == [b"ab", "close"]


def test_the_rest_is_the_transport_s() -> None:
    assert told(lambda corked: corked.write(str(corked.is_closing()).encode())) == [b"False"]
