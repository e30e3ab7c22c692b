"""One HTTP request on its way, between a client that notes what it is told and a worker that a test plays."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from asgictl.interface.pending_request import PendingRequest
from asgictl.wire.messages import Chunk, Credit, Gone, Request, Response, Scope, Want, WorkerMessage
from tests.conftest import scenario
from tests.interface.fakes import RecordingRequest

SCOPE = Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None)
OK = [(b"content-type", b"text/plain")]
ENTRY, INBOX = b"1-0", "worker.1"


def part(sequence: int, body: bytes, *, more: bool = False, aborted: bool = False) -> Response:
    return Response("i/1", sequence, 200, [] if sequence else OK, body, more, aborted, 1, ENTRY, INBOX if more else "")


wants = count(1)


def want(size: int, entry: bytes = ENTRY, inbox: str = INBOX, attempt: int = 1) -> Want:
    return Want("i/1", attempt, entry, inbox, size, next(wants))


class Exchange:
    """A request, its client, and what workers are told. ended: how often it ended."""

    def __init__(
        self,
        method: str = "GET",
        *,
        more: bool = False,
        limit: int = 1 << 30,
        credit: int = 1 << 20,
        deadline: float = 0,
    ) -> None:
        self.client = RecordingRequest()
        self.letters: list[tuple[str, WorkerMessage]] = []
        self.answers: list[Callable[[object], None]] = []
        self.ended = 0
        event = Request("i/1", 1, replace(SCOPE, method=method), b"", more, credit)
        loop = asyncio.get_running_loop()
        self.pending = PendingRequest(event, self.client, self.post, self.end, limit, deadline, loop)

    def post(self, inbox: str, letter: WorkerMessage, answered: Callable[[object], None]) -> None:
        self.letters.append((inbox, letter))
        self.answers.append(answered)

    def end(self, pending: PendingRequest) -> None:
        assert pending is self.pending
        self.ended += 1

    def uploads(self, *parts: bytes) -> None:
        """Hand on parts of a body, each once it is asked for; the last one is its end."""
        for number, data in enumerate(parts, 1):
            assert self.client.wants == number
            self.pending.received(data, number < len(parts))

    def told(self) -> list[WorkerMessage]:
        """Return the letters since the last call."""
        letters, self.letters = self.letters, []
        return [letter for _, letter in letters]


def exchanged(*parts: Response) -> RecordingRequest:
    """Return a client to whom these parts were handed one after another."""

    async def run() -> RecordingRequest:
        exchange = Exchange()
        for each in parts:
            exchange.pending.put(each)
        assert exchange.ended == 1
        return exchange.client

    return asyncio.run(run())


def test_a_whole_response_is_written_at_once() -> None:
    client = exchanged(part(0, b"hello"))
    assert (client.status, client.headers, client.parts) == (200, OK, [b"hello"])
    assert client.is_complete


def test_parts_are_written_in_sequence_and_a_repeated_one_is_dropped() -> None:
    client = exchanged(part(0, b"a", more=True), part(0, b"a", more=True), part(1, b"b", more=True), part(2, b"c"))
    assert (client.parts, client.is_complete) == ([b"a", b"b", b"c"], True)


def test_a_response_of_which_a_part_is_missing_is_cut_off() -> None:
    client = exchanged(part(0, b"a", more=True), part(2, b"c"))
    assert (client.parts, client.is_aborted) == ([b"a"], True)


def test_a_response_whose_first_part_is_missing_is_a_502() -> None:
    assert exchanged(part(1, b"b")).status == 502


@scenario
async def test_the_worker_of_a_response_that_is_cut_off_is_told_to_stop() -> None:
    exchange = Exchange()
    exchange.pending.put(part(0, b"a", more=True))
    exchange.pending.put(part(2, b"c", more=True))
    assert exchange.letters == [(INBOX, Gone("i/1", ENTRY))]


@scenario
async def test_what_comes_of_an_attempt_that_was_given_up_is_dropped() -> None:
    exchange = Exchange()
    exchange.pending.lost(True)  # its worker stood still for long, and wakes up while another runs the second attempt
    for number in (0, 1):
        exchange.pending.put(part(number, b"first", more=True))
        exchange.pending.put(replace(part(number, b"second", more=not number), attempt=2))
    assert exchange.client.parts == [b"second", b"second"]


@scenario
async def test_of_two_sendings_the_one_that_begins_first_is_the_response_and_the_other_is_told_to_stop() -> None:
    exchange = Exchange()
    for number in (0, 1):
        for entry in (b"1-0", b"2-0") if number == 0 else (b"2-0", b"1-0"):
            sent = replace(part(number, entry, more=True), entry=entry, inbox=f"worker.{entry.decode()}")
            exchange.pending.put(sent)
    assert exchange.client.parts == [b"1-0", b"1-0"]
    assert exchange.letters == [("worker.2-0", Gone("i/1", b"2-0"))] * 2


@scenario
async def test_a_part_leaves_before_the_next_one_comes() -> None:
    exchange = Exchange()
    exchange.pending.put(part(0, b"a", more=True))
    assert (exchange.client.parts, exchange.client.is_complete, exchange.ended) == ([b"a"], False, 0)
    exchange.pending.put(part(1, b"b"))
    assert (exchange.client.parts, exchange.client.is_complete, exchange.ended) == ([b"a", b"b"], True, 1)


def test_a_response_that_failed_on_the_way_is_cut_off() -> None:
    assert exchanged(part(0, b"a", more=True), part(1, b"", aborted=True)).is_aborted


@scenario
async def test_the_deadline_begins_with_the_request_and_ends_with_the_first_part() -> None:
    now = asyncio.get_running_loop().time()
    pending = Exchange(deadline=5).pending
    assert now + 5 <= pending.deadline <= now + 6
    pending.put(part(0, b"a", more=True))
    assert pending.deadline == float("inf")


@scenario
async def test_a_failure_answers_once_and_cuts_off_what_the_application_has_begun() -> None:
    exchange = Exchange()
    exchange.pending.fail(504, "Late.")
    exchange.pending.put(part(0, b"later still"))
    assert (exchange.client.status, exchange.client.parts, exchange.ended) == (504, [b"Late.\n"], 1)
    begun = Exchange()
    begun.pending.put(part(0, b"a", more=True))
    begun.pending.fail(504, "Late.")
    assert (begun.client.status, begun.client.parts, begun.client.is_aborted) == (200, [b"a"], True)
    assert begun.ended == 1


@scenario
async def test_no_room_in_redis_is_a_503_unless_an_earlier_sending_answers_already() -> None:
    exchange = Exchange()
    assert not exchange.pending.refused(False)
    assert exchange.client.status == 503
    begun = Exchange()
    begun.pending.put(part(0, b"a", more=True))
    assert begun.pending.refused(False)
    assert not begun.client.is_aborted


@pytest.mark.parametrize(
    ("method", "started", "attempts"),
    [("POST", [False, False], [1, 1]), ("GET", [False, True], [1, 2]), ("GET", [True, False], [2, 2])],
)
@scenario
async def test_a_request_whose_worker_died_is_sent_again(method: str, started: list[bool], attempts: list[int]) -> None:
    exchange = Exchange(method)
    event = exchange.pending.event
    again = [exchange.pending.lost(each) for each in started]
    assert again == [replace(event, attempt=attempt) for attempt in attempts]
    assert exchange.client.status == 0


@pytest.mark.parametrize(("method", "started"), [("POST", [True]), ("GET", [True, True])])
@scenario
async def test_a_request_that_may_not_run_again_is_answered_with_502(method: str, started: list[bool]) -> None:
    exchange = Exchange(method)
    assert [exchange.pending.lost(each) for each in started][-1] is None
    assert (exchange.client.status, exchange.ended) == (502, 1)


@scenario
async def test_a_response_that_has_begun_is_cut_off_when_its_worker_died() -> None:
    exchange = Exchange()
    exchange.pending.put(part(0, b"a", more=True))
    assert exchange.pending.lost(False) is None
    assert (exchange.client.parts, exchange.client.is_aborted) == ([b"a"], True)


@scenario
async def test_only_a_safe_request_that_nobody_has_seen_anything_of_may_run_twice() -> None:
    assert Exchange().pending.repeatable
    assert not Exchange("POST").pending.repeatable
    assert not Exchange(more=True).pending.repeatable, "its body cannot be read twice"
    begun, second = Exchange(), Exchange()
    begun.pending.put(part(0, b"a", more=True))
    assert not begun.pending.repeatable
    second.pending.lost(True)
    assert not second.pending.repeatable


@scenario
async def test_nothing_of_a_body_that_is_pulled_is_read_before_a_worker_wants_it() -> None:
    exchange = Exchange("POST", more=True)
    assert exchange.client.wants == 0
    exchange.pending.want(want(2))
    exchange.pending.received(b"abc", True)
    assert exchange.letters[0] == (INBOX, Chunk("i/1", ENTRY, 1, b"abc", True))


@scenario
async def test_no_more_of_a_body_is_read_than_is_wanted() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(4))
    for reads in (1, 2):
        assert exchange.client.wants == reads
        exchange.pending.received(b"abc", True)
    assert exchange.client.wants == 2, "two bytes more than were wanted have come"
    exchange.pending.want(want(2))
    assert exchange.client.wants == 2, "these are they"
    exchange.pending.want(want(1))
    exchange.pending.received(b"abc", True)
    assert exchange.client.wants == 3
    assert [letter.sequence for letter in exchange.told() if isinstance(letter, Chunk)] == [1, 2, 3]


@scenario
async def test_the_last_chunk_says_so_and_nothing_is_read_behind_it() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(100))
    exchange.uploads(b"a", b"b")
    assert exchange.told() == [Chunk("i/1", ENTRY, 1, b"a", True), Chunk("i/1", ENTRY, 2, b"b", False)]
    assert exchange.client.wants == 2


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1), st.integers(1, 12), st.integers(0, 12))
@scenario
async def test_whatever_is_wanted_the_body_arrives_whole_and_never_more_than_a_part_beyond(
    parts: list[bytes], size: int, ahead: int
) -> None:
    exchange = Exchange("POST", more=True)
    wanted, heard, read = 0, b"", 0
    while heard != b"".join(parts):
        if wanted <= len(heard) + ahead:
            wanted += size
            exchange.pending.want(want(size))
        while read < exchange.client.wants:
            assert read < len(parts), "nothing is read behind the end"
            read += 1
            exchange.pending.received(parts[read - 1], read < len(parts))
        letters = exchange.told()
        assert all(isinstance(letter, Chunk) for letter in letters)
        heard += b"".join(letter.data for letter in letters if isinstance(letter, Chunk))
        assert len(heard) < wanted + 9


@scenario
async def test_a_second_entry_that_wants_the_body_is_told_that_nobody_waits_for_it() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(10))
    exchange.pending.want(want(10, b"2-0", "worker.2"))
    exchange.pending.want(want(10, ENTRY, "worker.3", attempt=2))
    assert exchange.letters == [("worker.2", Gone("i/1", b"2-0")), ("worker.3", Gone("i/1", ENTRY))]
    exchange.uploads(b"abc")
    assert exchange.letters[-1] == (INBOX, Chunk("i/1", ENTRY, 1, b"abc", False))


@scenario
async def test_a_body_that_becomes_too_large_is_a_413_and_its_worker_is_told_to_stop() -> None:
    exchange = Exchange("POST", more=True, limit=5)
    exchange.pending.want(want(100))
    exchange.pending.received(b"12345", True)
    exchange.pending.received(b"6", True)
    assert (exchange.client.status, exchange.ended) == (413, 1)
    assert exchange.told() == [Chunk("i/1", ENTRY, 1, b"12345", True), Gone("i/1", ENTRY)]
    assert exchange.client.wants == 2, "it is not read on"


@scenario
async def test_a_part_of_the_body_for_a_worker_that_is_no_more_is_a_502() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(100))
    exchange.uploads(b"a", b"b", b"c")
    exchange.answers[0](b"1-0")
    exchange.answers[1](None)
    assert exchange.client.status == 502


@scenario
async def test_a_part_of_the_body_that_the_layer_refuses_ends_the_request() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(100))
    exchange.uploads(b"a", b"b")
    exchange.answers[0](RuntimeError("NOPERM"))
    assert exchange.client.status == 502


@scenario
async def test_a_want_that_comes_twice_counts_once() -> None:
    exchange = Exchange("POST", more=True)
    asked = want(1)
    exchange.pending.want(asked)
    exchange.pending.want(asked)
    assert exchange.client.wants == 1
    exchange.pending.received(b"a", True)
    assert exchange.client.wants == 1
    assert exchange.told() == [Chunk("i/1", ENTRY, 1, b"a", True)]


@scenario
async def test_a_worker_that_ends_behind_its_response_cuts_nothing_off() -> None:
    exchange = Exchange(credit=4)
    exchange.pending.put(part(0, b"abcd", more=True))
    exchange.pending.put(part(1, b"e"))
    exchange.answers[0](None)
    assert (exchange.client.parts, exchange.client.is_complete) == ([b"abcd", b"e"], True)
    assert exchange.ended == 1


@scenario
async def test_the_deadline_is_put_off_by_each_part_of_the_body_until_the_response_begins() -> None:
    exchange = Exchange("POST", more=True, deadline=5)
    for _ in range(2):
        exchange.pending.deadline = 0
        exchange.pending.want(want(1))
        exchange.pending.received(b"a", True)
        assert exchange.pending.deadline > asyncio.get_running_loop().time()
    exchange.pending.put(part(0, b"a", more=True))
    exchange.pending.want(want(1))
    exchange.pending.received(b"b", False)
    assert exchange.pending.deadline == float("inf")


@scenario
async def test_it_is_known_whether_the_client_or_a_worker_is_waited_for() -> None:
    exchange = Exchange("POST", more=True)
    heard = [exchange.pending.waits_for_body]
    exchange.pending.want(want(1))
    heard.append(exchange.pending.waits_for_body)
    exchange.pending.received(b"a", True)
    heard.append(exchange.pending.waits_for_body)
    assert heard == [False, True, False]


@pytest.mark.parametrize("credit", [4 << 10, 100 << 10, 1 << 20])
@scenario
async def test_credit_is_told_of_in_quarters_and_a_worker_that_uses_it_never_runs_dry(credit: int) -> None:
    exchange = Exchange(credit=credit)
    left, size, letters, parts = credit, credit // 7, 0, 100
    for sequence in range(parts):
        assert left > 0, "nothing more is on its way, and yet the worker may not send"
        left -= size
        exchange.pending.put(part(sequence, b"x" * size, more=True))
        for letter in exchange.told():
            assert isinstance(letter, Credit)
            assert letter.size >= credit // 4
            left += letter.size
            letters += 1
        assert left <= credit
    assert letters <= parts // 2 + 1


@scenario
async def test_nothing_is_credited_before_the_client_has_taken_it() -> None:
    exchange = Exchange(credit=4)
    exchange.client.is_paused = True
    exchange.pending.put(part(0, b"ab", more=True))
    exchange.pending.put(part(1, b"cd", more=True))
    assert exchange.told() == []
    exchange.client.is_paused = False
    exchange.pending.resumed()
    assert exchange.letters == [(INBOX, Credit("i/1", ENTRY, 4, 1))]


@pytest.mark.parametrize("begun", [False, True])
@scenario
async def test_a_client_that_leaves_before_the_end_of_its_response_is_gone(begun: bool) -> None:
    exchange = Exchange()
    if begun:
        exchange.pending.put(part(0, b"a", more=True))
    exchange.pending.gone()
    assert (exchange.pending.is_gone, exchange.ended) == (True, 1)
    assert exchange.pending.answer.status == (200 if begun else 499)
    assert exchange.told() == ([Gone("i/1", ENTRY)] if begun else [])
    exchange.pending.want(want(1))
    assert exchange.told() == [Gone("i/1", ENTRY)]


@scenario
async def test_a_client_that_leaves_within_its_body_is_gone_and_its_worker_hears_of_it() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(100))
    exchange.pending.received(b"a", True)
    exchange.pending.gone()
    assert exchange.told() == [Chunk("i/1", ENTRY, 1, b"a", True), Gone("i/1", ENTRY)]


@scenario
async def test_a_client_that_has_left_is_not_answered_when_its_worker_then_dies() -> None:
    exchange = Exchange("POST", more=True)
    exchange.pending.want(want(100))
    exchange.pending.received(b"a", True)
    exchange.pending.gone()
    exchange.answers[0](None)
    assert (exchange.client.status, exchange.pending.answer.status, exchange.ended) == (0, 499, 1)


@scenario
async def test_what_is_logged_of_a_response_is_known_at_its_end() -> None:
    exchange = Exchange()
    exchange.pending.put(replace(part(0, b"abc", more=True), run_seconds=0.5, worker="worker-00"))
    exchange.pending.put(part(1, b"de"))
    answer = exchange.pending.answer
    assert (answer.status, answer.bytes, answer.run_seconds, answer.worker) == (200, 5, 0.5, "worker-00")
