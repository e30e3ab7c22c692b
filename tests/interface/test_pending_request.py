"""One HTTP request on its way, without a server."""

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from functools import wraps
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from asgictl.config import Limits
from asgictl.interface.pending_request import Aborted, BodyTooLarge, ClientGone, PendingRequest, read_body
from asgictl.wire.messages import Chunk, Credit, Gone, Request, Response, Scope, Want, WorkerMessage
from tests.conftest import scenario as with_deadline
from tests.interface.conftest import settled

ASGIMessage = MutableMapping[str, Any]
SCOPE = Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None)
OK = [(b"content-type", b"text/plain")]
LEFT = {"type": "http.disconnect"}
ENTRY, INBOX = b"1-0", "worker.1"


def part(sequence: int, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
    return Response("i/1", sequence, 200, [] if sequence else OK, body, more, aborted, 1, ENTRY, INBOX if more else "")


wants = count(1)


def want(size: int, entry: bytes = ENTRY, inbox: str = INBOX, attempt: int = 1) -> Want:
    return Want("i/1", attempt, entry, inbox, size, next(wants))


def chunk(body: bytes, *, more: bool) -> ASGIMessage:
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """An pending, the client's side of it, and what workers are told."""

    def __init__(
        self,
        method: str = "GET",
        *,
        more: bool = False,
        limit: int = 1 << 30,
        credit: int = 1 << 20,
        deadline: float = 0,
    ) -> None:
        self.incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        self.reads = 0  # how often it was asked for more
        self.sent: list[ASGIMessage] = []
        self.letters: list[tuple[str, WorkerMessage]] = []
        self.answers: list[Callable[[object], None]] = []
        self.breaks = False
        event = Request("i/1", 1, replace(SCOPE, method=method), b"", False, credit)
        self.pending = PendingRequest(event, self.receive, self.post, limit, deadline, asyncio.get_running_loop())
        self.pending.begin(b"", more)

    async def receive(self) -> ASGIMessage:
        self.reads += 1
        return await self.incoming.get()

    async def send(self, message: ASGIMessage) -> None:
        if self.breaks:
            raise BrokenPipeError
        self.sent.append(message)

    def post(self, inbox: str, letter: WorkerMessage, answered: Callable[[object], None]) -> None:
        self.letters.append((inbox, letter))
        self.answers.append(answered)

    async def says(self, *messages: ASGIMessage) -> None:
        for message in messages:
            self.incoming.put_nowait(message)
        await settled()

    def writes(self) -> "asyncio.Task[None]":
        """Begin to write the response."""
        return asyncio.create_task(self.pending.write(self.send))

    def parts(self) -> list[Response]:
        """Return what is to be written."""
        return list(self.pending._parts)

    def told(self) -> list[WorkerMessage]:
        """Return the letters since the last call."""
        letters, self.letters = self.letters, []
        return [letter for _, letter in letters]


def scenario(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @with_deadline
    @wraps(test)
    async def main(**fixtures: Any) -> None:
        await test(**fixtures)
        await settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    return main


def written(*parts: Response) -> list[ASGIMessage]:
    """Return what a server is sent when these parts arrive one after another."""

    async def run() -> list[ASGIMessage]:
        client = Client()
        writing = client.writes()
        for each in parts:
            await settled()
            client.pending.put(each)
        await asyncio.wait_for(writing, 10)
        return client.sent

    return asyncio.run(run())


def test_a_whole_response_is_a_start_and_one_body() -> None:
    assert written(part(0, b"hello")) == [
        {"type": "http.response.start", "status": 200, "headers": OK},
        {"type": "http.response.body", "body": b"hello"},
    ]


def test_parts_are_written_in_sequence_and_a_repeated_one_is_dropped() -> None:
    messages = written(part(0, b"a", more=True), part(0, b"a", more=True), part(1, b"b", more=True), part(2, b"c"))
    assert [message["body"] for message in messages[1:]] == [b"a", b"b", b"c"]


def test_a_response_of_which_a_part_is_missing_is_cut_off() -> None:
    with pytest.raises(Aborted):
        written(part(0, b"a", more=True), part(2, b"c"))


def test_a_response_whose_first_part_is_missing_is_a_502() -> None:
    assert written(part(1, b"b"))[0]["status"] == 502


@scenario
async def test_the_worker_of_a_response_that_is_cut_off_is_told_to_stop() -> None:
    client = Client()
    client.pending.put(part(0, b"a", more=True))
    client.pending.put(part(2, b"c", more=True))
    assert client.letters == [(INBOX, Gone("i/1", ENTRY))]


@scenario
async def test_what_comes_of_an_attempt_that_was_given_up_is_dropped() -> None:
    client = Client()
    client.pending.lost(True)  # its worker stood still for long, and wakes up while another runs the second attempt
    for number in (0, 1):
        client.pending.put(part(number, b"first", more=True))
        client.pending.put(replace(part(number, b"second", more=not number), attempt=2))
    assert [each.body for each in client.parts()] == [b"second", b"second"]


@scenario
async def test_of_two_sendings_the_one_that_begins_first_is_the_response_and_the_other_is_told_to_stop() -> None:
    client = Client()
    for number in (0, 1):
        for entry in (b"1-0", b"2-0") if number == 0 else (b"2-0", b"1-0"):
            sent = replace(part(number, entry, more=True), entry=entry, inbox=f"worker.{entry.decode()}")
            client.pending.put(sent)
    assert [each.body for each in client.parts()] == [b"1-0", b"1-0"]
    assert client.letters == [("worker.2-0", Gone("i/1", b"2-0"))] * 2


@scenario
async def test_a_part_leaves_before_the_next_one_comes() -> None:
    client = Client()
    writing = client.writes()
    client.pending.put(part(0, b"a", more=True))
    await settled()
    assert client.sent[-1] == {"type": "http.response.body", "body": b"a", "more_body": True}
    client.pending.put(part(1, b"b"))
    await writing


def test_a_response_that_failed_on_the_way_is_cut_off() -> None:
    with pytest.raises(Aborted):
        written(part(0, b"a", more=True), part(1, b"", aborted=True))


@scenario
async def test_the_deadline_begins_once_the_body_was_read_and_ends_with_the_first_part() -> None:
    client = Client(deadline=5)
    now = asyncio.get_running_loop().time()
    begun = PendingRequest(client.pending.event, client.receive, client.post, 10, 5, asyncio.get_running_loop())
    assert begun.deadline == float("inf")
    begun.begin(b"body", more=False)
    assert now < begun.deadline <= now + 6
    begun.put(part(0, b"a", more=True))
    assert begun.deadline == float("inf")


@scenario
async def test_a_failure_answers_once_and_cuts_off_what_the_application_has_begun() -> None:
    client = Client()
    client.pending.fail(504, "Late.")
    client.pending.put(part(0, b"later still"))
    assert [each.status for each in client.parts()] == [504]
    begun = Client()
    begun.pending.put(part(0, b"a", more=True))
    begun.pending.fail(504, "Late.")
    assert [(each.sequence, each.aborted) for each in begun.parts()] == [(0, False), (1, True)]


@scenario
async def test_no_room_in_redis_is_a_503_unless_an_earlier_sending_answers_already() -> None:
    client = Client()
    assert not client.pending.refused(False)
    assert [each.status for each in client.parts()] == [503]
    begun = Client()
    begun.pending.put(part(0, b"a", more=True))
    assert begun.pending.refused(False)
    assert not begun.parts()[-1].aborted


@pytest.mark.parametrize(
    ("method", "started", "attempts"),
    [("POST", [False, False], [1, 1]), ("GET", [False, True], [1, 2]), ("GET", [True, False], [2, 2])],
)
@scenario
async def test_a_request_whose_worker_died_is_sent_again(method: str, started: list[bool], attempts: list[int]) -> None:
    client = Client(method)
    event = client.pending.event
    again = [client.pending.lost(each) for each in started]
    assert again == [replace(event, attempt=attempt) for attempt in attempts]
    assert client.parts() == []


@pytest.mark.parametrize(("method", "started"), [("POST", [True]), ("GET", [True, True])])
@scenario
async def test_a_request_that_may_not_run_again_is_answered_with_502(method: str, started: list[bool]) -> None:
    client = Client(method)
    assert [client.pending.lost(each) for each in started][-1] is None
    assert [each.status for each in client.parts()] == [502]


@scenario
async def test_a_response_that_has_begun_is_cut_off_when_its_worker_died() -> None:
    client = Client()
    client.pending.put(part(0, b"a", more=True))
    assert client.pending.lost(False) is None
    assert [each.aborted for each in client.parts()] == [False, True]


@scenario
async def test_only_a_safe_request_that_nobody_has_seen_anything_of_may_run_twice() -> None:
    assert Client().pending.repeatable
    assert not Client("POST").pending.repeatable
    assert not Client(more=True).pending.repeatable, "its body cannot be read twice"
    begun, second = Client(), Client()
    begun.pending.put(part(0, b"a", more=True))
    assert not begun.pending.repeatable
    second.pending.lost(True)
    assert not second.pending.repeatable


@scenario
async def test_nothing_of_a_body_that_is_pulled_is_read_before_a_worker_wants_it() -> None:
    client = Client("POST", more=True)
    await client.says(chunk(b"abc", more=True))
    assert client.reads == 0
    client.pending.want(want(2))
    await settled()
    assert client.letters == [(INBOX, Chunk("i/1", ENTRY, 1, b"abc", True))]
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_a_body_is_read_one_message_ahead_of_what_is_wanted() -> None:
    client = Client("POST", more=True)
    await client.says(*[chunk(b"abc", more=True)] * 4)
    client.pending.want(want(4))
    await settled()
    assert [letter.sequence for letter in client.told() if isinstance(letter, Chunk)] == [1, 2]
    assert client.reads == 3
    client.pending.want(want(3))
    await settled()
    assert [letter.sequence for letter in client.told() if isinstance(letter, Chunk)] == [3]
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_the_last_chunk_says_so_and_nothing_follows_it() -> None:
    client = Client("POST", more=True)
    client.pending.want(want(100))
    await client.says(chunk(b"a", more=True), chunk(b"b", more=False), chunk(b"", more=False))
    assert client.told() == [Chunk("i/1", ENTRY, 1, b"a", True), Chunk("i/1", ENTRY, 2, b"b", False)]
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_a_bodys_end_without_bytes_needs_no_want_so_that_the_clients_leaving_is_heard() -> None:
    client = Client("POST", more=True)
    writing = client.writes()
    client.pending.want(want(1))
    client.pending.put(part(0, b"a", more=True))
    await client.says(chunk(b"b", more=True), chunk(b"", more=False), LEFT)
    with pytest.raises(ClientGone):
        await writing
    sent = {Chunk("i/1", ENTRY, 1, b"b", True), Chunk("i/1", ENTRY, 2, b"", False)}
    assert set(client.told()) == {*sent, Gone("i/1", ENTRY)}


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1), st.integers(1, 12), st.integers(0, 12))
@scenario
async def test_whatever_is_wanted_the_body_arrives_whole_and_never_more_than_a_message_beyond(
    messages: list[bytes], size: int, ahead: int
) -> None:
    client = Client("POST", more=True)
    wanted, heard = 0, b""
    for number, message in enumerate(messages):
        client.incoming.put_nowait(chunk(message, more=number + 1 < len(messages)))
    while heard != b"".join(messages):
        if wanted <= len(heard) + ahead:
            wanted += size
            client.pending.want(want(size))
        await settled()
        letters = client.told()
        assert all(isinstance(letter, Chunk) for letter in letters)
        heard += b"".join(letter.data for letter in letters if isinstance(letter, Chunk))
        assert len(heard) < wanted + 9
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_a_second_entry_that_wants_the_body_is_told_that_nobody_waits_for_it() -> None:
    client = Client("POST", more=True)
    client.pending.want(want(10))
    client.pending.want(want(10, b"2-0", "worker.2"))
    client.pending.want(want(10, ENTRY, "worker.3", attempt=2))
    assert client.letters == [("worker.2", Gone("i/1", b"2-0")), ("worker.3", Gone("i/1", ENTRY))]
    await client.says(chunk(b"abc", more=False))
    assert client.letters[-1] == (INBOX, Chunk("i/1", ENTRY, 1, b"abc", False))
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_a_body_that_becomes_too_large_is_a_413_and_its_worker_is_told_to_stop() -> None:
    client = Client("POST", more=True, limit=5)
    writing = client.writes()
    client.pending.want(want(100))
    await client.says(chunk(b"12345", more=True), chunk(b"6", more=True), chunk(b"7", more=True))
    await writing
    assert client.sent[0]["status"] == 413
    assert set(client.told()) == {Chunk("i/1", ENTRY, 1, b"12345", True), Gone("i/1", ENTRY)}
    assert client.incoming.qsize() == 1, "it is not read on"


@scenario
async def test_a_part_of_the_body_for_a_worker_that_is_no_more_is_a_502() -> None:
    client = Client("POST", more=True)
    writing = client.writes()
    client.pending.want(want(100))
    await client.says(chunk(b"a", more=True), chunk(b"b", more=True))
    client.answers[0](b"1-0")
    client.answers[1](None)
    await writing
    assert client.sent[0]["status"] == 502


@scenario
async def test_a_part_of_the_body_that_the_layer_refuses_ends_the_request() -> None:
    client = Client("POST", more=True)
    client.pending.want(want(100))
    await client.says(chunk(b"a", more=True), chunk(b"b", more=False))
    client.answers[0](RuntimeError("NOPERM"))
    await client.writes()
    assert client.sent[0]["status"] == 502


@scenario
async def test_a_want_that_comes_twice_counts_once() -> None:
    client = Client("POST", more=True)
    asked = want(1)
    client.pending.want(asked)
    client.pending.want(asked)
    await client.says(chunk(b"a", more=True), chunk(b"b", more=True))
    assert client.told() == [Chunk("i/1", ENTRY, 1, b"a", True)]
    client.pending.put(part(0, b""))
    await client.writes()


@scenario
async def test_a_worker_that_ends_behind_its_response_cuts_nothing_off() -> None:
    client = Client(credit=4)
    writing = client.writes()
    client.pending.put(part(0, b"abcd", more=True))
    await settled()
    client.pending.put(part(1, b"e"))
    client.answers[0](None)
    await writing
    assert client.sent[-1]["body"] == b"e"


@scenario
async def test_the_deadline_is_put_off_by_each_part_of_the_body_until_the_response_begins() -> None:
    client = Client("POST", more=True, deadline=5)
    for _ in range(2):
        client.pending.deadline = 0
        client.pending.want(want(1))
        await client.says(chunk(b"a", more=True))
        assert client.pending.deadline > asyncio.get_running_loop().time()
    client.pending.put(part(0, b"a", more=True))
    client.pending.want(want(1))
    await client.says(chunk(b"b", more=False))
    assert client.pending.deadline == float("inf")
    client.pending.put(part(1, b""))
    await client.writes()


@pytest.mark.parametrize("credit", [4 << 10, 100 << 10, 1 << 20])
@scenario
async def test_credit_is_told_of_in_quarters_and_a_worker_that_uses_it_never_runs_dry(credit: int) -> None:
    client = Client(credit=credit)
    writing = client.writes()
    left, size, letters, parts = credit, credit // 7, 0, 100
    for sequence in range(parts):
        assert left > 0, "nothing more is on its way, and yet the worker may not send"
        left -= size
        client.pending.put(part(sequence, b"x" * size, more=True))
        await settled()
        for letter in client.told():
            assert isinstance(letter, Credit)
            assert letter.size >= credit // 4
            left += letter.size
            letters += 1
        assert left <= credit
    assert letters <= parts // 2 + 1
    client.pending.put(part(parts, b""))
    await writing


@scenario
async def test_nothing_is_credited_before_it_was_written() -> None:
    client = Client(credit=4)
    client.pending.put(part(0, b"abcd", more=True))
    assert client.told() == []
    writing = client.writes()
    await settled()
    assert client.letters == [(INBOX, Credit("i/1", ENTRY, 4, 1))]
    client.pending.put(part(1, b""))
    await writing


@pytest.mark.parametrize("begun", [False, True])
@scenario
async def test_a_client_that_leaves_before_the_end_of_its_response_is_gone(begun: bool) -> None:
    client = Client()
    client.pending.listen()
    if begun:
        client.pending.put(part(0, b"a", more=True))
    writing = client.writes()
    await client.says(chunk(b"", more=False), LEFT)
    with pytest.raises(ClientGone):
        await writing
    assert client.told() == ([Gone("i/1", ENTRY)] if begun else [])
    client.pending.want(want(1))
    assert client.told() == [Gone("i/1", ENTRY)]


@scenario
async def test_a_client_that_leaves_within_its_body_is_gone_and_its_worker_hears_of_it() -> None:
    client = Client("POST", more=True)
    writing = client.writes()
    client.pending.want(want(100))
    await client.says(chunk(b"a", more=True), LEFT)
    with pytest.raises(ClientGone):
        await writing
    assert set(client.told()) == {Chunk("i/1", ENTRY, 1, b"a", True), Gone("i/1", ENTRY)}


@scenario
async def test_a_server_that_cannot_write_has_lost_the_client() -> None:
    client = Client()
    client.breaks = True
    client.pending.put(part(0, b"a", more=True))
    with pytest.raises(ClientGone):
        await client.writes()
    assert client.told() == [Gone("i/1", ENTRY)]


@scenario
async def test_a_response_that_is_there_is_written_although_nobody_listens() -> None:
    client = Client()
    client.pending.listen()
    await client.says(LEFT)
    client.pending.put(part(0, b"whole"))
    await client.writes()
    assert client.sent[-1]["body"] == b"whole"


LENGTH = [(b"content-length", b"10")]
INLINE_BYTES = Limits().inline_bytes
INLINE = [(b"content-length", b"%d" % INLINE_BYTES)]
LARGE = [(b"content-length", b"%d" % (INLINE_BYTES + 1))]
CHUNKED = [(b"transfer-encoding", b"chunked")]
EXPECTING = [(b"expect", b"100-continue")]


def body_of(
    headers: list[tuple[bytes, bytes]], *messages: ASGIMessage, limit: int = 1 << 20, deadline: float = 10
) -> tuple[bytes, bool]:
    """What is read of a body before its event is sent; reading more than there is never ends."""

    async def main() -> tuple[bytes, bool]:
        incoming: asyncio.Queue[ASGIMessage] = asyncio.Queue()
        for message in messages:
            incoming.put_nowait(message)
        limits = Limits(body_bytes=limit, http_deadline_seconds=deadline)
        return await read_body({"headers": headers}, incoming.get, limits)

    return asyncio.run(main())


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [(b"content-length", b"0"), *EXPECTING]])
def test_a_request_without_a_body_is_not_waited_for(headers: list[tuple[bytes, bytes]]) -> None:
    assert body_of(headers) == (b"", False)


def test_a_small_body_is_read_to_its_end() -> None:
    assert body_of(LENGTH, chunk(b"12345", more=True), chunk(b"67890", more=False)) == (b"1234567890", False)


def test_a_body_of_64_kib_still_travels_with_its_event() -> None:
    assert body_of(INLINE, chunk(b"x" * INLINE_BYTES, more=False)) == (b"x" * INLINE_BYTES, False)


@pytest.mark.parametrize("headers", [LARGE, CHUNKED, LENGTH + EXPECTING, CHUNKED + EXPECTING])
def test_a_body_that_is_large_of_unknown_size_or_asked_about_is_not_read(headers: list[tuple[bytes, bytes]]) -> None:
    assert body_of(headers) == (b"", True)


@pytest.mark.parametrize("more", [[], EXPECTING])
def test_a_body_that_says_that_it_is_too_large_is_not_read(more: list[tuple[bytes, bytes]]) -> None:
    assert body_of(LENGTH, chunk(b"1234567890", more=False), limit=10)[0]
    with pytest.raises(BodyTooLarge):
        body_of(LENGTH + more, limit=9)


def test_a_client_that_leaves_within_a_small_body_is_gone() -> None:
    with pytest.raises(ClientGone):
        body_of(LENGTH, chunk(b"12345", more=True), LEFT)


def test_a_small_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    with pytest.raises(TimeoutError):
        body_of(LENGTH, chunk(b"12345", more=True), deadline=0)
