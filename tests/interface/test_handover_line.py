"""A line of a hand-over, over a real Unix socket on both event loops: messages and descriptors."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asgictl.interface.handover_line import Line
from asgictl.wire.handover import (
    MOST_BYTES,
    NOTHING,
    FromOld,
    NoneLeft,
    Record,
    Taken,
    Yours,
    decode_from_new,
    decode_from_old,
    encode_frame,
)
from asgictl.wire.manifest import ANY

Run = Callable[[Coroutine[Any, Any, None]], None]
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


def record(connection: str, size: int = 0) -> bytes:
    fields: Any = (b"", ANY, b"", 1, 0, 0, True, bytes(size), [], {}, b"e", NOTHING, NOTHING)
    return encode_frame(Record(connection, *fields))


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Ends:
    """Both ends, and what each has heard."""

    def __init__(self) -> None:
        self.old_socket, self.new_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.heard: list[tuple[FromOld, int | None]] = []
        self.answers: list[object] = []
        self.ended: list[str] = []
        self.old = Line(self.old_socket, decode_from_new, self._answered, lambda: self.ended.append("new"))
        self.new = Line(self.new_socket, decode_from_old, self._hear, lambda: self.ended.append("old"))

    def _hear(self, message: FromOld, descriptor: int | None) -> None:
        if message == Yours("bad"):
            raise LookupError(message)
        self.heard.append((message, descriptor))

    def _answered(self, message: object, descriptor: int | None) -> None:
        assert descriptor is None
        self.answers.append(message)

    async def __aenter__(self) -> "Ends":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.old.close()
        self.new.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)


async def carries() -> None:
    async with Ends() as ends:
        await carries_over(ends, [os.pipe() for _ in range(20)])


async def carries_over(ends: Ends, pipes: list[tuple[int, int]]) -> None:
    for number, (_, write) in enumerate(pipes):
        ends.old.send(record(f"i/{number}", size=number * 20_000), write)
        ends.old.send(encode_frame(Yours(f"i/{number}")))
    await ends.until(lambda: len(ends.heard) == 40)
    for number, (read, write) in enumerate(pipes):
        (sent, descriptor), (yours, none) = ends.heard[2 * number : 2 * number + 2]
        assert isinstance(sent, Record)
        assert (sent.connection, len(sent.unread)) == (f"i/{number}", number * 20_000)
        assert (yours, none) == (Yours(f"i/{number}"), None)
        assert descriptor is not None
        assert not os.get_inheritable(descriptor)
        os.close(write)
        os.write(descriptor, b"x")
        assert os.read(read, 9) == b"x"
        os.close(read)
        os.close(descriptor)
    ends.new.send(encode_frame(Taken("i/0")))
    await ends.until(lambda: ends.answers == [Taken("i/0")])


@both_loops
def test_each_descriptor_comes_with_its_record_however_large_it_is(run: Run) -> None:
    run(carries())


async def ends() -> None:
    async with Ends() as both:
        await end_of(both, *os.pipe())


async def end_of(ends: Ends, read: int, write: int) -> None:
    half = record("i/1", size=100_000)[:1000]
    ends.old.send(encode_frame(NoneLeft()))
    ends.old.send(half, write)
    await ends.until(lambda: ends.heard)
    await asyncio.sleep(0.02)  # so long that the half would have been read
    ends.old.close()
    await ends.until(lambda: ends.ended)
    assert ends.heard == [(NoneLeft(), None)]
    assert ends.ended == ["old"]
    os.close(write)
    assert os.read(read, 9) == b"", "the descriptor of the half is open still"
    os.close(read)
    ends.new.send(encode_frame(Taken("i/1")))  # is no error


@both_loops
def test_the_end_comes_behind_what_was_whole_and_drops_what_was_not(run: Run) -> None:
    run(ends())


async def dies() -> None:
    async with Ends() as ends:
        ends.old.close()
        dead, living = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        heard: list[str] = []
        given, other = socket.socketpair()

        def hear(message: FromOld, descriptor: int | None) -> None:
            assert isinstance(message, Record)
            assert descriptor is not None
            os.close(descriptor)
            heard.append(message.connection)
            line.send(encode_frame(Taken(message.connection)))

        line = Line(living, decode_from_old, hear, lambda: heard.append("end"))
        for number in range(100):
            socket.send_fds(dead, [record(f"i/{number}")], [given.fileno()])
            if number == 20:
                await ends.until(lambda: len(heard) == 21)  # and is not told so
        for each in (dead, given, other):
            each.close()
        await ends.until(lambda: heard[-1] == "end")
        assert heard == [*(f"i/{number}" for number in range(100)), "end"]


@both_loops
def test_what_a_dead_end_has_said_is_heard_although_it_had_not_read_all(run: Run) -> None:
    run(dies())


async def waits() -> None:
    async with Ends() as ends:
        ends.new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(30):
            ends.old.send(record("i/1", size=300_000))
        ends.old.send(encode_frame(NoneLeft()))
        await ends.until(lambda: len(ends.heard) == 31)


@both_loops
def test_what_finds_no_room_waits(run: Run) -> None:
    run(waits())


async def fails(caplog: pytest.LogCaptureFixture) -> None:
    async with Ends() as ends:
        ends.old.send(encode_frame(Yours("bad")))
        ends.old.send((3).to_bytes(4) + b"\xc1\xc1\xc1")
        ends.old.send(encode_frame(NoneLeft()))
        await ends.until(lambda: ends.heard)
        assert caplog.text.count("skipped a message of a hand-over") == 2
        assert not ends.ended


def test_a_message_that_cannot_be_heard_is_logged_and_the_line_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(fails(caplog))


async def too_long() -> None:
    async with Ends() as ends:
        ends.old.send((MOST_BYTES + 1).to_bytes(4))
        await ends.until(lambda: ends.ended)


def test_a_length_that_no_message_has_ends_the_line() -> None:
    asyncio.run(too_long())
