"""One WebSocket of an ASGI application, between a client that notes what it is told and a worker that a test plays."""

import asyncio
from typing import Any

import pytest

from asgictl.config import Limits
from asgictl.interface.stream_socket import StreamSocket
from asgictl.layers.base import Answered
from asgictl.layers.flow_control import FRAME_BYTES, weight
from asgictl.telemetry.rejections import Rejections
from asgictl.wire.messages import (
    Accept,
    Close,
    Closed,
    Connect,
    Credit,
    Done,
    Ended,
    Frame,
    Frames,
    Gone,
    Incoming,
    Reply,
    Scope,
    Want,
    WorkerMessage,
)
from tests.conftest import scenario
from tests.interface.conftest import settled
from tests.interface.fakes import RecordingSocket

INBOX, ENTRY = "w.asgi", b"5-0"


class Socket:
    """A relay, its host, and both of its ends. posted: letters to the worker; is_worker_there: it hears them.

    unread: what the client sent while it was not to be read.
    """

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.rejections = Rejections()
        self.events: list[Connect] = []
        self.skips = self.closes = 0
        self.posted: list[tuple[str, WorkerMessage]] = []
        self.is_worker_there = True
        self.client = RecordingSocket()
        self.unread: list[Frame] = []
        scope = Scope("", "ws", "1.1", "", "/ws", b"/ws", b"", [], None, None)
        self.relay = StreamSocket("i/1", scope, "", self, self.client)
        self.relay.open()

    def submit(self, session: StreamSocket, event: Connect) -> None:
        self.events.append(event)

    def skip(self, session: StreamSocket) -> None:
        self.skips += 1

    def closed(self, session: StreamSocket) -> None:
        self.closes += 1

    def post(self, inbox: str, letter: WorkerMessage, answered: Answered) -> None:
        self.posted.append((inbox, letter))
        asyncio.get_running_loop().call_soon(answered, b"1-0" if self.is_worker_there else None)

    async def says(self, *frames: Frame) -> None:
        self.unread += frames
        await self._read()

    async def _read(self) -> None:
        while self.unread and self.client.is_open and not self.client.is_held:
            self.relay.receive(self.unread.pop(0))
        await settled()

    async def leaves(self, code: int = 1001, reason: str = "") -> None:
        self.client.is_open = False
        self.relay.left(code, reason)
        await settled()

    async def hears(self, *replies: Reply) -> None:
        for reply in replies:
            self.relay.answer(reply, None)
        await self._read()

    async def opens(self) -> None:
        await self.hears(done(accept=Accept(None, [])))

    def letters(self, kind: type[WorkerMessage]) -> list[Any]:
        return [letter for _, letter in self.posted if isinstance(letter, kind)]


def done(accept: Accept | None = None, close: Close | None = None, entry: bytes = ENTRY, inbox: str = INBOX) -> Done:
    return Done("i/1", 0, [], b"", accept, close, [], [], 1, entry, inbox if accept else "")


def frames(sequence: int, *said: Frame, entry: bytes = ENTRY) -> Frames:
    return Frames("i/1", list(said), sequence, entry)


def want(size: int, sequence: int = 0, entry: bytes = ENTRY) -> Want:
    return Want("i/1", 1, entry, INBOX, size, sequence)


@scenario
async def test_a_handshake_goes_to_a_worker_and_its_answer_opens_the_socket() -> None:
    socket = Socket()
    await settled()
    assert [event.attempt for event in socket.events] == [1]
    assert socket.client.sent == []
    await socket.hears(done(accept=Accept("chat", [(b"a", b"b")])))
    assert socket.client.sent == [Accept("chat", [(b"a", b"b")])]
    await socket.leaves()
    assert socket.closes == 1


@scenario
async def test_frames_go_numbered_to_the_worker_that_answered_then_the_end() -> None:
    socket = Socket()
    await socket.opens()
    await socket.says("one", b"")
    await socket.leaves(4000, "bye")
    letters = [Incoming("i/1", ENTRY, "one", 1), Incoming("i/1", ENTRY, b"", 2), Ended("i/1", ENTRY, 4000, "bye", 3)]
    assert socket.posted == [(INBOX, letter) for letter in letters]
    assert socket.closes == 1


@scenario
async def test_what_the_worker_sends_is_written_once_and_in_order() -> None:
    socket = Socket()
    await socket.opens()
    await socket.hears(frames(1, "one"), frames(2, "two"), frames(1, "one"), frames(2, "two"))
    await socket.hears(Closed("i/1", 4000, "bye", 3, ENTRY), frames(4, "late"))
    assert socket.client.kinds() == ["accept", "frame", "frame", "close"]
    assert socket.client.closed == Close(4000, "bye")


@scenario
async def test_a_part_that_is_missing_closes_the_socket_with_1012() -> None:
    socket = Socket()
    await socket.opens()
    await socket.hears(frames(1, "one"), frames(3, "three"), frames(4, "four"))
    assert socket.client.kinds() == ["accept", "frame", "close"]
    assert socket.client.closed.code == 1012


@scenario
async def test_of_two_workers_that_answer_the_first_has_the_socket_and_the_other_is_told() -> None:
    socket = Socket()
    await socket.opens()
    second = done(accept=Accept("other", []), entry=b"6-0", inbox="v.asgi")
    assert not socket.relay.is_answered_by(second)
    await socket.hears(second, frames(1, "of the second", entry=b"6-0"), frames(1, "of the first"))
    assert socket.posted == [("v.asgi", Gone("i/1", b"6-0"))]
    assert socket.client.frames == ["of the first"]


@pytest.mark.parametrize(("status", "body"), [(403, b""), (401, b"not you")])
@scenario
async def test_a_refusal_ends_the_handshake_with_its_response(status: int, body: bytes) -> None:
    socket = Socket()
    refusal = Close(1000, "", status, [(b"a", b"b")], body)
    await socket.hears(done(close=refusal))
    assert socket.client.sent == [refusal]
    await socket.leaves(1006)
    assert (socket.closes, socket.posted) == (1, [])


@pytest.mark.parametrize("answer", [done(accept=Accept(None, [])), done(close=Close(1000, ""))])
@scenario
async def test_a_client_that_leaves_while_it_is_answered_leaves_nothing_behind(answer: Done) -> None:
    socket = Socket()
    await settled()
    await socket.leaves(1006)
    assert (socket.skips, socket.closes) == (1, 0)
    await socket.hears(answer)
    assert socket.closes == 1
    assert socket.letters(Ended) == ([Ended("i/1", ENTRY, 1006, "", 1)] if answer.accept else [])
    assert socket.client.sent == []


@pytest.mark.parametrize("asks_first", [True, False])
@scenario
async def test_an_application_that_waits_before_it_answers_is_told_that_its_client_has_left(asks_first: bool) -> None:
    socket = Socket()
    await settled()
    if asks_first:
        await socket.hears(want(0))
        assert socket.posted == []
    await socket.leaves()
    if not asks_first:
        await socket.hears(want(0))
    assert socket.posted == [(INBOX, Gone("i/1", ENTRY))]


@scenario
async def test_a_handshake_that_nobody_answers_in_time_is_503() -> None:
    socket = Socket(connect_deadline_seconds=0)
    await socket.client.ended.wait()
    assert socket.client.closed.status == 503
    await socket.leaves(1006)
    await socket.hears(done(close=Close(1011, "", 500)))
    assert socket.closes == 1
    assert sum(socket.rejections.snapshot().values()) == 1


@scenario
async def test_a_handshake_whose_worker_died_goes_to_another_and_after_three_is_500() -> None:
    socket = Socket()
    await settled()
    assert [again.attempt for started in (False, True, True) if (again := socket.relay.lost(started))] == [1, 2, 3]
    assert socket.relay.lost(started=True) is None
    await settled()
    assert socket.client.closed.status == 500
    await socket.leaves(1006)
    assert (socket.closes, socket.skips) == (1, 0)


@scenario
async def test_a_handshake_whose_client_has_left_is_not_sent_again() -> None:
    socket = Socket()
    await settled()
    await socket.leaves()
    assert socket.relay.lost(started=True) is None
    assert socket.closes == 1


@pytest.mark.parametrize("how", ["told", "found"])
@scenario
async def test_a_dead_worker_s_socket_closes_with_1012_behind_what_it_had_sent(how: str) -> None:
    socket = Socket()
    await socket.opens()
    await socket.hears(frames(1, "last"))
    socket.is_worker_there = False
    if how == "told":
        socket.relay.died()
    await socket.says("into the void")
    assert socket.client.kinds() == ["accept", "frame", "close"]
    assert socket.client.closed.code == 1012
    await socket.says("ignored")
    await socket.leaves(1012)
    assert socket.closes == 1


@scenario
async def test_a_client_is_not_read_while_too_much_waits_for_the_application() -> None:
    socket = Socket(inbox_bytes=10 * FRAME_BYTES)
    await socket.opens()
    await socket.says(*[""] * 20)
    assert len(socket.letters(Incoming)) == 11
    await socket.hears(want(5 * FRAME_BYTES, 1))
    assert len(socket.letters(Incoming)) == 11, "not yet half of it"
    await socket.hears(want(5 * FRAME_BYTES, 1))
    assert len(socket.letters(Incoming)) == 11, "it was said twice"
    await socket.hears(want(FRAME_BYTES, 2))
    assert len(socket.letters(Incoming)) == 17


@scenario
async def test_an_application_that_takes_nothing_for_too_long_has_its_socket_closed() -> None:
    socket = Socket(inbox_bytes=0, inbox_deadline_seconds=0)
    await socket.opens()
    await socket.says("one", "two")
    await socket.client.ended.wait()
    assert socket.client.closed.code == 1013


@scenario
async def test_a_client_that_is_held_back_is_read_again_when_its_socket_is_closed() -> None:
    socket = Socket(inbox_bytes=0)
    await socket.opens()
    await socket.says("one", "two")
    assert socket.client.is_held
    await socket.hears(Closed("i/1", 1000, "", 1, ENTRY))
    assert not socket.client.is_held
    await socket.leaves()
    assert (socket.client.closed.code, socket.closes) == (1000, 1)


@scenario
async def test_the_worker_is_told_of_exactly_the_frames_that_the_client_has_taken() -> None:
    socket = Socket(outbox_bytes=40 * FRAME_BYTES)
    await socket.opens()
    sent: list[Frame] = ["", "x" * 100, b"y" * 200] * 30
    socket.client.waiting_bytes = 1
    await socket.hears(*[frames(number, frame) for number, frame in enumerate(sent, 1)])
    assert socket.letters(Credit) == []
    assert socket.client.frames == sent
    socket.client.waiting_bytes = 0
    socket.relay.resumed()
    await socket.hears(*[frames(number, frame) for number, frame in enumerate(sent, len(sent) + 1)])
    credits = socket.letters(Credit)
    missing = 2 * sum(map(weight, sent)) - sum(letter.size for letter in credits)
    assert 0 <= missing < 10 * FRAME_BYTES
    assert [letter.sequence for letter in credits] == list(range(1, len(credits) + 1)), "each arrives, and once"


@scenario
async def test_a_client_that_is_closed_is_not_counted_as_one_whose_frames_nobody_took() -> None:
    socket = Socket(inbox_bytes=0, inbox_deadline_seconds=0)
    await socket.opens()
    socket.relay.receive("one")
    socket.relay.died()
    assert not socket.client.is_held, "its answer to the close is to be read"
    await settled()
    assert (socket.client.closed.code, socket.rejections.snapshot()) == (1012, {})
