"""The worker's loop, with a layer that holds events in memory."""

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.app.application import Application, Consumer, path
from asgictl.app.message import BackgroundMessage, Message
from asgictl.app.sending import Group
from asgictl.layers.base import Entry
from asgictl.wire.messages import (
    VERSION,
    Broadcast,
    Close,
    Connect,
    Disconnect,
    Done,
    Event,
    Frames,
    Job,
    Receive,
    Request,
    Response,
    Sent,
    decode_event,
    encode_scope,
)
from asgictl.worker.loop import PREFETCH, Loop, drained
from tests.worker.conftest import scope

SCOPE = scope(path="/hello", raw_path=b"/hello")


class Layer:
    """Gives out these events, those of a list with one read, then has the loop stop."""

    inbox = "w.0"

    def __init__(self, stopping: threading.Event, *reads: list[Event]) -> None:
        self.stopping = stopping
        numbers = count()
        self.reads = [[Entry(b"ch", b"%d-0" % next(numbers), event) for event in events] for events in reads]
        self.counts: list[int] = []
        self.released: list[bytes] = []
        self.now: list[Frames | Sent] = []
        self.commits: list[tuple[bytes, Response | Done | None, list[Sent]]] = []
        self.last_wills: list[bytes] = []
        self.settled = True
        self.sent = 0

    def read(self, count: int) -> list[Entry]:
        self.counts.append(count)
        if self.reads:
            return self.reads.pop(0)
        self.stopping.set()
        return []

    def commit(self, entry: Entry, reply: Response | Done | None, sends: list[Sent], last_will: bytes = b"") -> None:
        self.last_wills.append(last_will)
        self.commits.append((entry.id, reply, sends))

    def release(self, entries: list[Entry]) -> None:
        self.released += sorted(entry.id for entry in entries)

    def send_now(self, sent: Frames | Sent) -> None:
        self.now.append(sent)

    def settle(self) -> None:
        self.flush()

    def flush(self) -> None:
        self.sent = len(self.commits)


class AsyncTurns:
    def __init__(self) -> None:
        self.begun: list[Entry] = []
        self.held: set[bytes] = set()

    def holds(self, entry: Entry) -> bool:
        return entry.id in self.held

    def begin(self, entry: Entry, turn: object) -> None:
        self.begun.append(entry)


class ASGIRuns:
    def __init__(self) -> None:
        self.begun: list[Entry] = []

    def serves(self, entry: Entry) -> bool:
        return isinstance(entry.event, Request) and entry.event.scope.path == "/asgi"

    def begin(self, entry: Entry) -> bool:
        self.begun.append(entry)
        return False


def request(path: str = "/hello", method: str = "GET", attempt: int = 1) -> Request:
    return Request("i/1", attempt, scope(method, path=path, raw_path=path.encode()), b"")


class Notes:
    """What the controller would find after a death."""

    def __init__(self, *old: bytes) -> None:
        self.noted = list(old)

    def clear(self) -> None:
        self.noted.clear()

    def note(self, stream: bytes, entry: bytes) -> None:
        self.noted.append(b"%b %b" % (stream, entry))


def ran(
    application: Application,
    *events: Event,
    held: frozenset[bytes] = frozenset(),
    notes: Notes | None = None,
    settled: bool = True,
) -> tuple[Layer, AsyncTurns]:
    loop, layer, async_turns = made(application, list(events), notes=notes)
    layer.settled = settled
    async_turns.held = set(held)
    loop.run()
    return layer, async_turns


def made(application: Application, *reads: list[Event], notes: Notes | None = None) -> tuple[Loop, Layer, AsyncTurns]:
    """Return a loop that is yet to run."""
    stopping = threading.Event()
    layer: Any = Layer(stopping, *reads)
    started: Any = notes or Notes()
    async_turns: Any = AsyncTurns()
    asgi: Any = ASGIRuns()
    return Loop(application, layer, stopping, async_turns, asgi, started), layer, async_turns


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    Group("g").send(text="from a view")
    return [b"hello"]


def test_every_event_of_a_read_is_committed_and_sent_before_the_loop_ends() -> None:
    layer, _ = ran(Application(http=hello), request(), request())
    assert [commit[0] for commit in layer.commits] == [b"0-0", b"1-0"]
    assert layer.sent == 2


@pytest.mark.parametrize(("settled", "noted"), [(True, []), (False, [b"old", b"ch 0-0", b"ch 1-0"])])
def test_what_starts_is_noted_and_kept_until_it_is_committed(settled: bool, noted: list[bytes]) -> None:
    notes = Notes(b"old")
    ran(Application(http=hello), request(), request(), notes=notes, settled=settled)
    assert notes.noted == noted


def test_what_a_view_sends_to_a_group_is_committed_with_its_response() -> None:
    layer, _ = ran(Application(http=hello), request())
    _, reply, broadcasts = layer.commits[0]
    assert isinstance(reply, Response)
    assert (reply.body, reply.entry) == (b"hello", b"0-0")
    assert broadcasts == [Broadcast("g", "from a view")]


def test_what_a_view_sent_before_it_raised_leaves_no_more_than_its_response() -> None:
    def failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        Group("g").send(text="never")
        raise ValueError("theirs")

    layer, _ = ran(Application(http=failing), request())
    _, reply, sends = layer.commits[0]
    assert isinstance(reply, Response)
    assert (reply.status, sends) == (500, [])


def test_a_path_that_this_worker_cannot_serve_is_answered() -> None:
    layer, _ = ran(Application(http={"/hello": hello}), request("/other"))
    reply = layer.commits[0][1]
    assert isinstance(reply, Response)
    assert reply.status == 404


def test_an_event_for_an_asgi_application_is_handed_on_and_noted() -> None:
    notes = Notes()
    loop, layer, _ = made(Application(http=hello), [request("/asgi"), request()], notes=notes)
    layer.settled = False
    loop.run()
    asgi: Any = loop._asgi
    assert [entry.id for entry in asgi.begun] == [b"0-0"]
    assert [commit[0] for commit in layer.commits] == [b"1-0"]
    assert notes.noted == [b"ch 0-0", b"ch 1-0"]


def websocket(consumer: Consumer) -> Application:
    return Application(websocket=[path("/hello", connect=consumer)])


CONNECT = Connect("i/1", 1, 1, encode_scope(SCOPE), b"")


def test_a_turn_is_run_and_committed() -> None:
    layer, _ = ran(websocket(lambda message: message.accept()), CONNECT)
    reply = layer.commits[0][1]
    assert isinstance(reply, Done)
    assert reply.accept is not None
    assert layer.last_wills == [b""], "no consumer wants to hear of the end"


def test_a_turn_is_committed_with_its_connections_last_will() -> None:
    application = Application(websocket=[path("/hello", connect=lambda message: message.accept(), disconnect=print)])
    layer, _ = ran(application, CONNECT)
    assert isinstance(decode_event(b"%d" % VERSION, layer.last_wills[0]), Disconnect)


def test_an_async_consumers_turn_is_handed_on_once() -> None:
    async def accept(message: Message) -> None:
        message.accept()

    layer, async_turns = ran(websocket(accept), CONNECT, CONNECT, held=frozenset({b"1-0"}))
    assert [entry.id for entry in async_turns.begun] == [b"0-0"]
    assert layer.commits == []


def post(attempt: int = 1) -> Request:
    return request(method="POST", attempt=attempt)


def receive(*, at_most_once: bool = False, attempt: int = 1) -> Receive:
    return Receive("i/1", 1, attempt, encode_scope(SCOPE), b"", ["x"], 0, at_most_once)


def order(layer: Layer) -> list[bytes]:
    return [commit[0] for commit in layer.commits]


@pytest.mark.parametrize("careful", [post(), receive(at_most_once=True)], ids=["unsafe", "at most once"])
def test_of_events_that_may_not_repeat_one_runs_first_and_others_of_a_read_are_given_back(careful: Event) -> None:
    loop, layer, _ = made(Application(http=hello), [request(), careful, receive(), careful, post()], [])
    loop.run()
    assert order(layer) == [b"1-0", b"0-0", b"2-0"]
    assert layer.released == [b"3-0", b"4-0"]


def test_while_events_that_may_not_repeat_are_about_no_more_than_one_is_read() -> None:
    loop, layer, _ = made(Application(http=hello), [request()], [post()], [post()], [request()])
    loop.run()
    assert layer.counts == [PREFETCH, PREFETCH, 1, 1, PREFETCH]


def test_what_a_worker_died_of_runs_last_and_with_empty_hands() -> None:
    seen: list[tuple[int, list[bytes]]] = []

    class Looking(Notes):
        def note(self, stream: bytes, entry: bytes) -> None:
            super().note(stream, entry)
            seen.append((layer.sent, list(self.noted)))

    events: list[Event] = [receive(attempt=2), receive(), receive(attempt=2)]
    loop, layer, _ = made(websocket(print), events, [], notes=Looking())
    loop.run()
    assert order(layer) == [b"1-0", b"0-0"]
    assert layer.released == [b"2-0"]
    assert seen[1] == (1, [b"ch 0-0"]), "what ran before is committed, so nothing else is lost with it"


def test_what_ran_before_stays_noted_when_its_commit_cannot_be_settled() -> None:
    """Were it not, it would be sent again as if it had never started."""
    notes = Notes()
    ran(Application(http=hello), post(), request(attempt=2), notes=notes, settled=False)
    assert notes.noted == [b"ch 0-0", b"ch 1-0"]


def test_what_is_in_hand_at_the_stop_is_given_back_and_what_runs_is_finished() -> None:
    stop: list[Callable[[], None]] = []

    def view(environ: Any, start_response: Any) -> list[bytes]:
        stop[0]()
        return hello(environ, start_response)

    loop, layer, _ = made(Application(http=view), [request(), request(), request()])
    stop.append(layer.stopping.set)
    loop.run()
    assert order(layer) == [b"0-0"]
    assert layer.released == [b"1-0", b"2-0"]
    assert layer.sent == 1


def test_what_the_control_thread_could_not_give_back_is_given_back_before_the_next_read() -> None:
    loop, layer, _ = made(Application(http=hello), [request(), request()], [request()])
    released: list[list[bytes]] = []
    read = layer.read

    def reading(count: int) -> list[Entry]:
        released.append(list(layer.released))
        return read(count)

    def view(environ: Any, start_response: Any) -> list[bytes]:
        loop.unreleased.extend(loop.take_prefetched())
        return hello(environ, start_response)

    loop.application.http["/"] = view
    layer.read = reading  # type: ignore[method-assign]
    loop.run()
    assert order(layer) == [b"0-0", b"2-0"]
    assert released == [[], [b"1-0"], [b"1-0"]]


def test_an_event_is_in_one_threads_hands_alone() -> None:
    loop, _, _ = made(Application())
    entries = [Entry(b"ch", b"%d-0" % number, request()) for number in range(20_000)]
    loop.prefetched.extend(entries)
    taken: list[Entry] = []
    begin = threading.Barrier(2)

    def control() -> None:
        begin.wait()
        taken.extend(loop.take_prefetched())

    other = threading.Thread(target=control)
    other.start()
    begin.wait()
    while entry := loop._next():
        taken.append(entry)
    other.join()
    assert sorted(taken) == sorted(entries)
    assert drained(loop.prefetched) == []


def test_what_runs_and_since_when_is_told_while_it_runs_alone() -> None:
    seen: list[tuple[Any, bool]] = []

    def view(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((loop.running and loop.running.id, 0 < loop.began == loop.since))
        assert loop.thread == threading.get_ident()
        loop._progressed()
        seen.append((loop.running, loop.since > loop.began))
        return hello(environ, start_response)

    loop, layer, _ = made(Application(http=view), [request()])
    (entry,) = layer.reads[0]
    loop.run()
    assert seen == [(b"0-0", True), (entry, True)]
    assert (loop.running, loop.events) == (None, 1)


def test_a_consumer_that_raises_system_exit_is_not_running_any_more_and_its_thread_goes_on() -> None:
    def leave(message: Message) -> None:
        raise SystemExit

    loop, layer, _ = made(websocket(leave), [CONNECT])
    loop.run()
    assert loop.running is None
    assert [reply.close for _, reply, _ in layer.commits if isinstance(reply, Done)] == [Close(1011, "", 500)]


def job(content: bytes = b"", attempt: int = 1) -> Job:
    return Job("job.a", attempt, "thumbs", content)


def test_a_job_is_committed_without_a_reply_and_with_what_it_sends() -> None:
    def consume(message: BackgroundMessage) -> None:
        Group("g").send(text="made")
        Group("g").send(text="now", immediately=True)

    layer, _ = ran(Application(background={"thumbs": consume}), job())
    assert layer.commits == [(b"0-0", None, [Broadcast("g", "made")])]
    assert layer.now == [Broadcast("g", "now")]


def test_an_async_job_is_handed_on_and_one_that_cannot_be_read_is_passed_over() -> None:
    async def consume(message: BackgroundMessage) -> None:
        """Does nothing."""

    application = Application(background={"thumbs": consume})
    layer, async_turns = ran(application, job())
    assert ([entry.event for entry in async_turns.begun], layer.commits) == ([job()], [])
    loop, layer, _ = made(application, [job(b"\xc1")])
    passed: list[bytes] = []
    layer.pass_over = lambda stream, entry, error: passed.append(entry)  # type: ignore[attr-defined]
    loop.run()
    assert passed == [b"0-0"]


@pytest.mark.parametrize(
    "event",
    [replace(CONNECT, scope=b"\xc1"), replace(receive(), scope=b"\x90"), replace(job(), name="other")],
    ids=["connect", "receive", "job"],
)
def test_an_event_that_cannot_be_run_ends_alone(event: Event) -> None:
    """An interface that waits for it hears that it has failed; what is behind it runs."""
    loop, layer, _ = made(Application(http=hello), [event, request()])
    passed: list[bytes] = []
    layer.pass_over = lambda stream, entry, error: passed.append(entry)  # type: ignore[attr-defined]
    loop.run()
    assert passed == [b"0-0"]
    *ended, (_, served, _) = layer.commits
    assert isinstance(served, Response)
    assert served.status == 200
    for _, reply, sends in ended:
        assert isinstance(reply, Done)
        assert reply.close
        assert (reply.close.code, reply.close.status, sends) == (1011, 500, [])
    assert len(ended) == (0 if isinstance(event, Job) else 1)


def test_a_job_that_took_too_long_has_nobody_to_be_answered() -> None:
    loop, _, _ = made(Application())
    assert loop.failure(Entry(b"ch", b"1-0", job()), 504, "too long") is None


@pytest.mark.parametrize("event", [request(), CONNECT, receive()], ids=["request", "connect", "receive"])
def test_what_ends_an_event_in_its_handlers_stead_is_of_that_event(event: Event) -> None:
    loop, _, _ = made(Application(http=hello))
    reply = loop.failure(Entry(b"ch", b"1-0", event), 504, "too long")
    assert reply
    assert (reply.connection, reply.attempt) == (event.connection, event.attempt)
    if isinstance(reply, Response):
        assert (reply.status, reply.body) == (504, b"too long\n")
    else:
        assert reply.close
        assert (reply.close.code, reply.close.reason, reply.close.status) == (1011, "too long", 504)


def test_what_ends_an_event_is_never_a_part_of_the_next_ones_response() -> None:
    replies: list[Response | Done | None] = []

    def view(environ: Any, start_response: Any) -> list[bytes]:
        assert loop.running
        for id in (b"9-0", loop.running.id):
            replies.append(loop.failure(Entry(b"ch", id, Request("i/9", 1, SCOPE, b"")), 504, "too long"))
        return hello(environ, start_response)

    loop, _, _ = made(Application(http=view), [request()])
    loop.run()
    assert [reply.connection for reply in replies if reply] == ["i/9", "i/1"]


def test_what_a_handler_sends_immediately_leaves_outside_of_its_commit() -> None:
    def view(environ: Any, start_response: Any) -> list[bytes]:
        Group("g").send(text="now", immediately=True)
        return hello(environ, start_response)

    def say(message: Message) -> None:
        message.reply(text="progress", immediately=True)

    application = Application(http=view, websocket=[path("/hello", receive=say)])
    layer, _ = ran(application, request(), receive())
    assert layer.now == [Broadcast("g", "now"), Frames("i/1", ["progress"])]
    assert layer.commits[0][2] == [Broadcast("g", "from a view")]


def test_what_is_handled_what_failed_and_how_long_it_took_is_counted() -> None:
    def fail(environ: Any, start_response: Any) -> list[bytes]:
        raise ValueError("as it is meant to")

    loop, _, _ = made(Application(http={"/hello": hello, "/fail": fail}), [request(), request("/fail")])
    loop.run()
    assert (loop.events, loop.errors) == (2, 1)
    assert loop.busy_so_far() == loop.busy_seconds > 0
    loop, _, _ = made(websocket(fail), [CONNECT])  # type: ignore[arg-type]
    loop.run()
    assert (loop.events, loop.errors) == (1, 1)


def test_what_runs_counts_as_busy_already() -> None:
    busy: list[float] = []

    def look(environ: Any, start_response: Any) -> list[bytes]:
        busy.append(loop.busy_so_far())
        return hello(environ, start_response)

    loop, _, _ = made(Application(http=look), [request()])
    loop.run()
    assert loop.busy_seconds > busy[0] > 0
