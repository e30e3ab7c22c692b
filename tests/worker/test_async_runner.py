"""The worker's event loop, with links to Redis that a test answers; turns of `async def` consumers, without Redis."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import hiredis
import pytest

from asgictl.app.application import Application, path
from asgictl.app.message import BackgroundMessage, Message
from asgictl.app.run import RunningJob, RunningTurn
from asgictl.app.sending import Group
from asgictl.layers.base import Entry
from asgictl.layers.redis.link import ALWAYS
from asgictl.layers.redis.refused import Commit
from asgictl.wire.messages import (
    VERSION,
    Broadcast,
    Close,
    Connect,
    Done,
    Event,
    Frames,
    Gone,
    Job,
    Request,
    Response,
    WorkerMessage,
    decode_reply,
    encode,
    encode_scope,
)
from asgictl.worker import async_runner
from asgictl.worker.async_runner import CAPACITY, AsyncTurns, EventLoop
from tests.worker.conftest import scope, settled

INBOX = b"asgictl:{test}:in:w.asgi"
GONE = Gone("i/1", b"5-0")
BUSY = hiredis.ReplyError("BUSYGROUP Consumer Group name already exists")


class Link:
    """Keeps commands until they are answered; ask() is answered from `answers`."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], Callable[[Any], None]]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []
        self.again: list[int] = []  # of each call: when the link is to send it again
        self.up = True
        self.dropped = asyncio.Event()

    def drop(self) -> None:
        self.dropped.set()

    def call(self, *command: Any, answered: Callable[[Any], None], again: int = 0) -> None:
        self.calls.append((command, answered))
        self.again.append(again)

    async def ask(self, *command: Any, again: int = 0) -> Any:
        self.asked.append(command)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, reply: Any) -> tuple[Any, ...]:
        """Answer the oldest command; returns it."""
        command, answered = self.calls.pop(0)
        answered(reply)
        return command

    def names(self) -> list[str]:
        return [command[0] for command, _ in self.calls]


class Loop(EventLoop):
    """On the loop that the test runs on, with both links played."""

    def __init__(self) -> None:
        super().__init__("unix:///absent", "test", "w")
        self._loop.close()
        self._loop: Any = asyncio.get_running_loop()
        self.commands, self.reads = Link(), Link()
        commands, reads = self.commands, self.reads
        self._link: Any = commands
        self._reader.link = reads  # type: ignore[assignment]
        self.heard: list[WorkerMessage] = []
        self.on_message = self.heard.append
        self.times_forgotten = 0
        self.on_forgotten = self._forget

    def _forget(self) -> None:
        self.times_forgotten += 1

    async def connects(self, inbox: Any = b"OK", *last: WorkerMessage) -> None:
        """last: letters that stand where the last one was read."""
        self.reads.answers += [inbox, [[b"1-0", list(encode(letter))] for letter in last]]
        await self._reader._begin()


def letters(*entries: tuple[bytes, WorkerMessage]) -> list[Any]:
    return [[INBOX, [[id, list(encode(letter))] for id, letter in entries]]]


def scenario(test: Callable[[Loop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await asyncio.wait_for(test(Loop()), 60)

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_letters_are_heard_in_order_and_then_trimmed(loop: Loop) -> None:
    await loop.connects()
    assert loop.reads.answer(letters((b"1-0", GONE), (b"2-0", GONE)))[-1] == b"0"
    assert loop.heard == [GONE, GONE]
    assert loop.reads.names() == ["XTRIM", "XREAD"]
    loop.reads.answer(1)
    assert loop.reads.answer(None)[-1] == b"2-0"


@scenario
async def test_a_letter_that_cannot_be_read_does_not_stop_those_behind_it(loop: Loop) -> None:
    await loop.connects()
    loop.reads.answer([[INBOX, [[b"1-0", [b"1", b"garbage"]], [b"2-0", list(encode(GONE))]]]])
    assert loop.heard == [GONE]


@scenario
async def test_after_a_cut_reading_goes_on_behind_the_last_message(loop: Loop) -> None:
    await loop.connects()
    loop.reads.answer(letters((b"1-0", GONE)))
    while loop.reads.calls:
        loop.reads.answer(ConnectionError("lost"))
    await loop.connects(BUSY, GONE)
    assert loop.reads.names() == ["XREAD"]
    assert loop.reads.calls[0][0][-1] == b"1-0"
    assert loop.times_forgotten == 0


@scenario
async def test_a_refused_read_is_tried_again_and_never_twice_side_by_side(loop: Loop) -> None:
    await loop.connects()
    loop.reads.answer(hiredis.ReplyError("UNBLOCKED"))
    assert loop.reads.calls == []
    await loop.reads.dropped.wait()
    assert loop.reads.calls == [], "it is the new connection that reads"
    await loop.connects(BUSY)
    assert loop.reads.names() == ["XREAD"]


@scenario
async def test_an_inbox_that_redis_has_forgotten_is_made_anew_and_what_runs_is_told(loop: Loop) -> None:
    await loop.connects()
    loop.reads.answer(None)
    assert loop.reads.names() == ["XGROUP", "XREAD"]
    loop.reads.answer(BUSY)
    assert loop.times_forgotten == 0
    loop.reads.answer(None)
    loop.reads.answer(b"OK")
    assert loop.times_forgotten == 1
    loop.reads.answer(ConnectionError("lost"))
    await loop.connects()
    assert loop.times_forgotten == 2, "forgotten while the link was lost"


REQUEST = Request("i/1", 1, scope(), b"")
COMMIT = Commit(Entry(b"asgictl:{test}:ch:http.request", b"5-0", REQUEST), Response("i/1", 0, 200, [], b"x"))


@scenario
async def test_a_forgotten_script_is_loaded(loop: Loop) -> None:
    loop.commands.answers = [hiredis.ReplyError("NOSCRIPT No matching script"), b"sha", 1]
    assert await loop.commit(COMMIT, ["a"]) == 1
    assert [command[0] for command in loop.commands.asked] == ["EVALSHA", "SCRIPT", "EVALSHA"]


def test_a_commit_that_redis_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(loop: Loop) -> None:
        monkeypatch.setattr(async_runner, "AGAIN_SECONDS", 0)
        loop.commands.answers = [hiredis.ReplyError("NOPERM"), hiredis.ReplyError("NOPERM"), -3]
        assert await loop.commit(COMMIT, ["a"]) == -3
        assert [command[0] for command in loop.commands.asked] == ["EVALSHA"] * 3
        assert loop.commands.calls == []

    run()


def test_a_commit_that_redis_refuses_for_good_ends_its_event_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @scenario
    async def run(loop: Loop) -> None:
        monkeypatch.setattr(async_runner, "REFUSED_SECONDS", -1)
        loop.commands.answers = [hiredis.ReplyError("NOPERM")]
        assert await loop.commit(COMMIT, ["a"]) is None
        assert loop.commands.names() == ["XADD", "EVAL", "XDEL", "XACK"]
        reply = decode_reply(*loop.commands.calls[0][0][-2:])
        assert isinstance(reply, Response)
        assert reply.status == 500

    run()
    assert "Redis rejected the commit of GET /a b (event 5-0): NOPERM" in caplog.text


@scenario
async def test_replies_go_to_their_interface_while_it_is_there(loop: Loop) -> None:
    heard: list[object] = []
    loop.reply(Frames("i/1", ["x"]), heard.append)
    loop.publish(Broadcast("g", "y"))
    assert loop.commands.answer(None)[:4] == ("XADD", "asgictl:{test}:re:i", "NOMKSTREAM", "*")
    assert loop.commands.answer(b"1-0")[:3] == ("XADD", "asgictl:{test}:bc", "*")
    assert heard == [None]


@scenario
async def test_what_is_sent_outside_of_a_commit_is_sent_again_when_the_link_was_cut(loop: Loop) -> None:
    loop.publish(Broadcast("g", "y"))
    loop.publish(Job("job.a", 1, "thumbs", b""))
    loop.publish(Frames("i/1", ["x"]))
    assert loop.commands.again == [ALWAYS] * 3


@scenario
async def test_what_another_thread_calls_happens_on_the_loop(loop: Loop) -> None:
    called: list[int] = []
    await asyncio.to_thread(loop.call, lambda: called.append(1))
    await settled()
    assert called == [1]


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
            self.submit(self._loop.shutdown_default_executor()).result(60)
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
        assert running.acquire(timeout=60)
    one_more = threading.Thread(target=begin, args=(turns, wait, CAPACITY))
    one_more.start()
    assert events.commits == []
    assert not running.acquire(blocking=False)
    events.call(go_on.set)
    one_more.join(60)
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
