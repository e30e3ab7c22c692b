"""Turns of `async def` consumers, without Redis."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from asgictl.app.application import Application, path
from asgictl.app.message import BackgroundMessage, Message
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.app.sending import Group
from asgictl.layers.base import Entry
from asgictl.layers.redis.refused import Commit
from asgictl.wire.messages import (
    VERSION,
    Broadcast,
    Close,
    Connect,
    Done,
    Event,
    Frames,
    Job,
    decode_reply,
    encode_scope,
)
from asgictl.worker.async_runner import EventLoop
from asgictl.worker.async_turns import CAPACITY, AsyncTurns
from tests.worker.conftest import scope


class Events(EventLoop):
    """Keeps what would go to Redis, and the thread that sends it."""

    def __init__(self) -> None:
        super().__init__("unix:///absent", "test", "h.1.aa")
        self.sent: list[tuple[object, int]] = []
        self.commits: list[tuple[object, ...]] = []
        self.dead_letters: list[tuple[Event, str]] = []
        self.may_commit = asyncio.Event()

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever)
            self._thread.start()

    def stop(self) -> None:
        if self._thread:
            self.submit(self._loop.shutdown_default_executor()).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def publish(self, sent: object) -> None:
        self.sent.append((sent, threading.get_ident()))

    async def dead_letter(self, event: Event, reason: str) -> None:
        self.dead_letters.append((event, reason))

    async def commit(self, commit: Commit, arguments: Sequence[Any]) -> None:
        await self.may_commit.wait()
        self.commits.append(tuple(arguments))


@pytest.fixture
def events() -> Iterator[Events]:
    made = Events()
    yield made
    made.stop()


def begin(turns: AsyncTurns, consumer: Any, number: int = 1) -> Entry:
    event = Connect(f"i/{number}", 1, 1, encode_scope(scope(path="/ws", raw_path=b"/ws")), b"")
    entry = Entry(b"ch", b"%d-0" % number, event)
    now: Any = None  # AsyncTurns puts its own there
    turns.begin(entry, RunningTurn(Application(websocket=[path("/ws", connect=consumer)]), event, now))
    return entry


def test_a_turn_is_in_hand_until_it_is_committed(events: Events) -> None:
    async def accept(message: Message) -> None:
        message.accept()

    turns = AsyncTurns(events)
    entry = begin(turns, accept)
    assert turns.holds(entry)
    assert not turns.holds(entry._replace(id=b"2-0"))
    events.call(events.may_commit.set)
    turns.finish()
    assert not turns.holds(entry)
    ((*_, said),) = events.commits
    assert isinstance(said, bytes)
    reply = decode_reply(b"%d" % VERSION, said)
    assert isinstance(reply, Done)
    assert (reply.connection, reply.number, reply.accept is not None) == ("i/1", 1, True)


def test_many_turns_run_at_a_time_and_no_more_than_there_is_room_for(events: Events) -> None:
    running = threading.Semaphore(0)
    go_on = asyncio.Event()

    async def wait(message: Message) -> None:
        running.release()
        await go_on.wait()

    turns = AsyncTurns(events)
    events.may_commit.set()
    for number in range(CAPACITY):
        begin(turns, wait, number)
    for _ in range(CAPACITY):
        assert running.acquire(timeout=10)
    one_more = threading.Thread(target=begin, args=(turns, wait, CAPACITY))
    one_more.start()
    assert events.commits == []
    assert not running.acquire(blocking=False)
    events.call(go_on.set)
    one_more.join(10)
    turns.finish()
    assert len(events.commits) == CAPACITY + 1


def test_what_is_sent_immediately_goes_over_the_event_loop_whichever_thread_sends_it(events: Events) -> None:
    sent_within: list[int] = []

    async def talk(message: Message) -> None:
        Group("g").send(text="of the loop", immediately=True)
        sent_within.append(len(events.sent))  # at once, so that its commit cannot overtake it
        await asyncio.to_thread(events.send_now, Frames("i/1", ["of a thread"]))

    turns = AsyncTurns(events)
    events.may_commit.set()
    begin(turns, talk)
    turns.finish()
    assert sent_within == [1]
    assert events._thread
    loop = events._thread.ident
    assert events.sent == [(Broadcast("g", "of the loop"), loop), (Frames("i/1", ["of a thread"]), loop)]


def test_a_turn_that_takes_too_long_is_cancelled_and_closes_its_socket(events: Events) -> None:
    async def forever(message: Message) -> None:
        await asyncio.Event().wait()

    turns = AsyncTurns(events, timeout_seconds=0.01)
    begin(turns, forever)
    events.call(events.may_commit.set)
    turns.finish()
    ((*_, said),) = events.commits
    assert isinstance(said, bytes)
    reply = decode_reply(b"%d" % VERSION, said)
    assert isinstance(reply, Done)
    assert reply.close == Close(1011, "", 500)


def test_a_job_that_takes_too_long_is_cancelled_kept_as_a_dead_letter_and_committed(events: Events) -> None:
    async def forever(message: BackgroundMessage) -> None:
        await asyncio.Event().wait()

    turns = AsyncTurns(events, timeout_seconds=0.01)
    job = Job("job.a", 1, "thumbs", b"")
    turns.begin(Entry(b"ch", b"1-0", job), RunningJob(Application(background={"thumbs": forever}), job))
    events.call(events.may_commit.set)
    turns.finish()
    assert events.dead_letters == [(job, "its handler took longer than 0.01 s")]
    ((*_, said),) = events.commits
    assert said == b"", "nobody is replied to"


@pytest.mark.parametrize("later", [False, True])
def test_a_consumer_that_cancels_its_own_task_without_waiting_is_committed_all_the_same(
    later: bool, events: Events
) -> None:
    async def cancels(message: Message) -> None:
        message.accept()
        task = asyncio.current_task()
        assert task
        if later:
            asyncio.get_running_loop().call_later(0.01, task.cancel)
        else:
            task.cancel()

    turns = AsyncTurns(events)
    begin(turns, cancels)

    def commit_soon() -> None:
        asyncio.get_running_loop().call_later(0.1, events.may_commit.set)

    events.call(commit_soon)
    turns.finish()
    ((*_, said),) = events.commits
    assert isinstance(said, bytes)
    reply = decode_reply(b"%d" % VERSION, said)
    assert isinstance(reply, Done)
    assert (reply.accept is not None, reply.close is not None) == (later, not later)


def test_a_reply_that_cannot_be_encoded_ends_its_turn(events: Events) -> None:
    async def slips(message: Message) -> None:
        message.accept()
        message._outcome.frames.append(object())  # type: ignore[arg-type]  # past every check

    turns = AsyncTurns(events)
    begin(turns, slips)
    events.call(events.may_commit.set)
    turns.finish()
    ((*_, said),) = events.commits
    assert isinstance(said, bytes)
    reply = decode_reply(b"%d" % VERSION, said)
    assert isinstance(reply, Done)
    assert reply.close == Close(1011, "", 500)
