"""The contract of a channel layer: every test runs against each, in memory and on each Redis that is promised."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from asgictl.app.run import LAST_TURN
from asgictl.layers.base import Entry, EventLayer, OnBroadcast, OnReply, Position, WorkerLayer
from asgictl.layers.memory import Memory, MemoryEventLayer
from asgictl.layers.memory_worker import MemoryWorkerLayer
from asgictl.layers.redis.interface_side import RedisEventLayer
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import beat, member, reap
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.messages import (
    VERSION,
    Broadcast,
    Chunk,
    Connect,
    Credit,
    Died,
    Disconnect,
    Done,
    Event,
    Frames,
    Gone,
    Job,
    Lost,
    Receive,
    Reply,
    Response,
    Sent,
    Want,
    WorkerMessage,
    decode_event,
    encode,
)
from asgictl.wire.state import encode_state
from tests.conftest import scenario
from tests.layers.conftest import CHANNELS, INTERFACE, Workers, done, receive, request, response

A, B = "host.7.aa", "host.7.aab"  # workers; neither may pass for the other
ONE, TWO = f"{INTERFACE}/1", f"{INTERFACE}/2"  # connections
OTHER = "host.2.bb"  # an interface
END = "end of what was sent until now"
EVENTS = 60
JOBS = ["background.thumbs"]
CLOCK_SECONDS = 0.01  # by which Redis's clock and ours may drift apart in a moment


class Interface:
    """An interface's side, and all that it has heard, in order."""

    def __init__(self, id: str, make: Callable[[str, OnReply, OnBroadcast], EventLayer]) -> None:
        self.id = id
        self.heard: asyncio.Queue[tuple[Reply | Broadcast | str, Position | None]] = asyncio.Queue()
        self.layer = make(id, self._put, self._put)

    def _put(self, heard: Reply | Broadcast, position: Position | None) -> None:
        if not (isinstance(heard, Broadcast) and heard.frame == END and heard.group != self.id):
            self.heard.put_nowait((heard, position))

    async def ask(self, ask: Callable[..., object], *arguments: object, **options: object) -> Any:
        """Wait for what the layer answers, which is never before the call returns."""
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        ask(*arguments, answer.set_result, **options)
        assert not answer.done()
        return await answer

    async def append(self, event: Event, pool: str = "") -> bytes:
        entry = await self.ask(self.layer.append, event.channel + pool, event, repeatable=True)
        assert isinstance(entry, bytes)
        return entry

    async def post(self, inbox: str, message: WorkerMessage) -> object:
        return await self.ask(self.layer.post, inbox, message)

    async def depth(self, channel: str) -> object:
        return await self.ask(self.layer.depth, channel)

    async def hears(self, *expected: Reply | Broadcast) -> None:
        """Hear this, in this order."""
        assert [(await self.heard.get())[0] for _ in expected] == list(expected)

    async def hears_nothing_more(self) -> None:
        self.layer.publish(Broadcast(self.id, END))
        await self.hears(Broadcast(self.id, END))

    async def leave(self) -> None:
        """Stop in order."""
        await self.layer.deregister()
        await self.layer.stop()


class Layers(ABC):
    """Makes the two sides, and sees to the dead as whoever hears of them does."""

    @abstractmethod
    def worker(self, consumer: str = f"{A}.0", channels: list[str] = CHANNELS) -> WorkerLayer: ...

    @abstractmethod
    def make_interface(self, id: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> EventLayer: ...

    @abstractmethod
    def release(self, worker: str, started: tuple[str, ...] = ("?",)) -> int: ...

    @abstractmethod
    def reap_interface(self, interface: str) -> int: ...

    @abstractmethod
    def beat(self) -> None:
        """What any process does each second."""

    @abstractmethod
    def dead_letters(self) -> list[tuple[str, Event, str]]:
        """Return channel, event and reason of each."""

    @asynccontextmanager
    async def interface(self, id: str = INTERFACE) -> AsyncIterator[Interface]:
        made = Interface(id, self.make_interface)
        await made.layer.start()
        try:
            yield made
        finally:
            await made.leave()


class MemoryLayers(Layers):
    def __init__(self) -> None:
        self.memory = Memory()

    def worker(self, consumer: str = f"{A}.0", channels: list[str] = CHANNELS) -> WorkerLayer:
        return MemoryWorkerLayer(self.memory, consumer, channels)

    def make_interface(self, id: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> EventLayer:
        return MemoryEventLayer(self.memory, id, on_reply, on_broadcast)

    def release(self, worker: str, started: tuple[str, ...] = ("?",)) -> int:
        return self.memory.release(worker, started)

    def reap_interface(self, interface: str) -> int:
        return self.memory.reap_interface(interface)

    def beat(self) -> None:
        """A read moves what is due."""

    def dead_letters(self) -> list[tuple[str, Event, str]]:
        return list(self.memory.dead_letters)


class RedisLayers(Layers):
    def __init__(self, url: str, name: str, worker: Workers, client: Any) -> None:
        self._url = url
        self._name = name
        self._worker = worker
        self._client = client

    def worker(self, consumer: str = f"{A}.0", channels: list[str] = CHANNELS) -> WorkerLayer:
        return self._worker(self._name, consumer, channels)

    def make_interface(self, id: str, on_reply: OnReply, on_broadcast: OnBroadcast) -> EventLayer:
        return RedisEventLayer(self._url, self._name, id, on_reply, on_broadcast, lambda: None, lambda _: None)

    def release(self, worker: str, started: tuple[str, ...] = ("?",)) -> int:
        return self._reap(member("worker", worker), started=started)

    def reap_interface(self, interface: str) -> int:
        return self._reap(member("interface", interface))

    def beat(self) -> None:
        beat(self._client, Keys(self._name), "worker", "host.9.beats", b"")

    def dead_letters(self) -> list[tuple[str, Event, str]]:
        entries = self._client.xrange(Keys(self._name).dead)
        return [
            (fields[b"channel"].decode(), decode_event(*next(iter(fields.items()))), fields[b"reason"].decode())
            for _, fields in entries
        ]

    def _reap(self, dead: str, **more: Any) -> int:
        return reap(self._client, Keys(self._name), dead, seen=True, **more)


def take_all(worker: WorkerLayer, count: int) -> list[Entry]:
    """Read until there are so many; pytest's own timeout bounds the wait."""
    taken: list[Entry] = []
    while len(taken) < count:
        taken += worker.read(count - len(taken))
    assert len(taken) == count
    return taken


def take(worker: WorkerLayer) -> Entry:
    """Read one event."""
    return take_all(worker, 1)[0]


def commit(
    worker: WorkerLayer, entry: Entry, reply: Response | Done | None, *sends: Sent, last_will: bytes = b""
) -> None:
    """Commit, and wait for the answer."""
    worker.commit(entry, reply, sends, last_will)
    worker.settle()
    assert worker.settled


def note(entry: Entry) -> str:
    """Return what a worker notes when it starts an event."""
    return f"{entry.stream.decode()} {entry.id.decode()}"


def connect(connection: str = ONE) -> Connect:
    return Connect(connection, 1, 1, b"", b"")


def disconnect(connection: str = ONE, number: int = LAST_TURN, reason: str = "") -> Disconnect:
    return Disconnect(connection, number, 1, b"scope", b"state", 1006, reason)


def last_will(connection: str = ONE, reason: str = "") -> bytes:
    return encode(disconnect(connection, reason=reason))[1]


def job(content: str = "x", attempt: int = 1, delay_milliseconds: int = 0) -> Job:
    return Job(f"job.{content}", attempt, "thumbs", encode_state({"content": content}), delay_milliseconds)


def say(frame: str) -> Broadcast:
    return Broadcast("g", frame)


class Contract:
    """What both layers promise."""

    @scenario
    async def test_events_are_read_in_order_even_those_added_before_the_first_worker_came(self, layers: Layers) -> None:
        events = [request(f"{INTERFACE}/{number}") for number in range(4)]
        async with layers.interface() as interface:
            for event in events[:2]:
                await interface.append(event)
            worker = layers.worker()
            for event in events[2:]:
                await interface.append(event)
            assert [entry.event for entry in take_all(worker, 4)] == events

    @scenario
    async def test_what_is_added_is_known_by_its_size(self, layers: Layers) -> None:
        async with layers.interface() as interface:
            for event in (request(), receive(1, "é" * 1000, b"x" * 1000), connect()):
                size = interface.layer.append(event.channel, event, lambda _answer: None, repeatable=True).size
                assert size >= len(encode(event)[1])

    @scenario
    async def test_each_event_goes_to_one_of_the_workers_that_compete(self, layers: Layers) -> None:
        first, second = layers.worker(f"{A}.0"), layers.worker(f"{B}.0")
        events = [receive(1, "x", connection=f"{INTERFACE}/{number}") for number in range(3)]
        async with layers.interface() as interface:
            for event in events:
                await interface.append(event)
            assert [take(worker).event for worker in (first, second, first)] == events

    @scenario
    async def test_a_read_gives_of_each_channel_as_much_as_was_asked_for(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for number in range(3):
                await interface.append(request(f"{INTERFACE}/{number}"))
            await interface.append(connect())
            assert sorted(entry.event.channel for entry in worker.read(2)) == [
                "http.request",
                "http.request",
                "websocket.connect",
            ]

    @scenario
    async def test_a_worker_reads_its_own_channels_alone(self, layers: Layers) -> None:
        slow, others = layers.worker(f"{A}.0", ["http.request.slow"]), layers.worker(f"{B}.0")
        async with layers.interface() as interface:
            await interface.append(request(ONE), ".slow")
            await interface.append(request(TWO))
            assert [entry.event.connection for entry in (take(others), take(slow))] == [TWO, ONE]

    @scenario
    async def test_with_many_workers_at_once_each_event_is_committed_once(self, layers: Layers) -> None:
        workers = [layers.worker(f"host.{number}.cc.0") for number in range(3)]
        seen: list[str] = []

        def serve(worker: WorkerLayer) -> None:
            while len(seen) < EVENTS:
                for entry in worker.read(4):
                    seen.append(entry.event.connection)
                    commit(worker, entry, done(1, connection=entry.event.connection))

        async with layers.interface() as interface:
            serving = [asyncio.create_task(asyncio.to_thread(serve, worker)) for worker in workers]
            connections = [f"{INTERFACE}/{number}" for number in range(EVENTS)]
            for connection in connections:
                await interface.append(receive(1, "x", connection=connection))
            await asyncio.gather(*serving)
            heard = [(await interface.heard.get())[0] for _ in connections]
            assert {reply.connection for reply in heard if isinstance(reply, Done)} == set(connections)
            await interface.hears_nothing_more()
            assert sorted(seen) == sorted(connections)
            assert [worker.refused for worker in workers] == [0, 0, 0]

    @scenario
    async def test_a_commit_ends_its_event_and_sends_all_that_it_produced_the_reply_first(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(request())
            entry = take(worker)
            assert entry.event == request()
            commit(worker, entry, response(), say("a"), say("b"))
            await interface.hears(response(), say("a"), say("b"))
            assert await interface.depth("http.request") == 0
            assert worker.refused == 0

    @scenario
    async def test_a_second_commit_of_an_event_is_refused_with_all_that_it_produced(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"))
            entry = take(worker)
            commit(worker, entry, done(1, "first"), say("first"))
            commit(worker, entry, done(2, "second"), say("second"))
            await interface.hears(done(1, "first"), say("first"))
            await interface.hears_nothing_more()
            assert worker.refused == 1

    @pytest.mark.parametrize("again", [1, 2])
    @scenario
    async def test_a_turn_that_is_not_newer_is_refused_and_its_event_gone(self, again: int, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for number in (2, again, 3):
                await interface.append(receive(number, "x"))
                commit(worker, take(worker), done(number), say(f"{number}"))
            await interface.hears(done(2), say("2"), done(3), say("3"))
            assert await interface.depth("websocket.receive") == 0
            assert worker.refused == 1

    @pytest.mark.parametrize("ending", ["last turn", "forgotten", "reaped", "deregistered"])
    @scenario
    async def test_nothing_is_remembered_of_turns_behind_the_end(self, ending: str, layers: Layers) -> None:
        """Connections' ids are not used twice, so that a first turn is taken again is only how to tell."""
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(connect())
            commit(worker, take(worker), done(1))
            await interface.hears(done(1))
            if ending == "last turn":
                await interface.append(disconnect(number=2))
                commit(worker, take(worker), done(2))
                await interface.hears(done(2))
            elif ending == "forgotten":
                interface.layer.forget(ONE)
            elif ending == "deregistered":
                await interface.layer.deregister()
            await interface.layer.stop()
            if ending == "reaped":
                assert layers.reap_interface(INTERFACE) == 0
            async with layers.interface() as again:
                await again.append(connect())
                commit(worker, take(worker), done(1))
                await again.hears(done(1))

    @scenario
    async def test_a_request_may_be_committed_for_as_often_as_it_was_sent(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for _ in range(2):
                await interface.append(request())
                commit(worker, take(worker), response())
            await interface.hears(response(), response())

    @scenario
    async def test_the_handshake_of_an_asgi_application_is_committed_and_is_no_turn(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for _ in range(2):
                await interface.append(connect())
                commit(worker, take(worker), done(0))
            await interface.append(connect())
            commit(worker, take(worker), done(1))
            await interface.hears(done(0), done(0), done(1))
            assert worker.refused == 0

    @scenario
    async def test_only_the_disconnect_of_an_interface_that_has_gone_is_heard_by_others(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as gone, layers.interface(OTHER) as other:
            for event in (receive(2, "x"), disconnect(number=3)):
                await gone.append(event)
            await gone.leave()
            turn, last = sorted(take_all(worker, 2), key=lambda entry: isinstance(entry.event, Disconnect))
            commit(worker, turn, done(2), say("nobody has seen this turn"))
            commit(worker, last, done(3), say("left"))
            await other.hears(say("left"))
            assert worker.refused == 1

    @scenario
    async def test_a_joiner_is_told_from_where_on_broadcasts_are_for_it(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for frame in ("early", "earlier"):
                interface.layer.publish(say(frame))
            await interface.append(connect())
            commit(worker, take(worker), done(1, joins=["g"]), say("of the join itself"))
            await interface.append(receive(2, "x"))
            commit(worker, take(worker), done(2))
            interface.layer.publish(say("late"))
            joined, heard, others = None, {}, set()
            for _ in range(6):
                message, position = await interface.heard.get()
                if isinstance(message, Broadcast):
                    heard[message.frame] = position
                elif message == done(1, joins=["g"]):
                    joined = position
                else:
                    others.add(position)
            assert joined is not None
            assert [frame for frame, position in heard.items() if position and position > joined] == [
                "of the join itself",
                "late",
            ]
            assert others == {None}

    @scenario
    async def test_every_interface_hears_a_broadcast_in_order_and_a_new_one_nothing_old(self, layers: Layers) -> None:
        async with layers.interface() as first:
            first.layer.publish(say("old"))
            await first.hears(say("old"))
            async with layers.interface(OTHER) as second:
                for frame in ("a", "b", "c"):
                    first.layer.publish(say(frame))
                for interface in (first, second):
                    await interface.hears(say("a"), say("b"), say("c"))

    @scenario
    async def test_a_release_tells_each_interface_what_is_lost_and_whether_it_had_started(self, layers: Layers) -> None:
        dead, other = layers.worker(f"{A}.0"), layers.worker(f"{B}.0")
        async with layers.interface() as one, layers.interface(OTHER) as two:
            await one.append(receive(1, "another's"))
            theirs = take(other)
            await one.append(receive(5, "x", connection=TWO))
            started = take(dead)
            await one.append(request(f"{INTERFACE}/3"))
            await two.append(receive(2, "x", connection=f"{OTHER}/1"))
            held = take_all(dead, 2)
            assert layers.release(A, started=(note(started),)) == 3
            assert {(await one.heard.get())[0] for _ in range(2)} == {
                Lost(TWO, 5, 1, True),
                Lost(f"{INTERFACE}/3", 0, 1, False),
            }
            await one.hears(Died(A))
            await two.hears(Lost(f"{OTHER}/1", 2, 1, False), Died(A))
            assert [await one.depth(channel) for channel in ("websocket.receive", "http.request")] == [1, 0]
            for entry in (started, *held):
                commit(dead, entry, done(9, connection=entry.event.connection), say("too late"))
            commit(other, theirs, done(1))
            assert (dead.refused, other.refused) == (3, 0)
            await one.hears(done(1))
            await one.hears_nothing_more()
            await two.hears_nothing_more()
            assert layers.release(A) == 0

    @scenario
    async def test_unless_it_is_known_what_had_started_all_of_it_may_have_in_every_thread(self, layers: Layers) -> None:
        workers = [layers.worker(f"{A}.{thread}") for thread in range(2)]
        async with layers.interface() as interface:
            for worker, connection in zip(workers, (ONE, TWO), strict=True):
                await interface.append(receive(7, "x", connection=connection))
                take(worker)
            assert layers.release(A) == 2
            heard = {(await interface.heard.get())[0] for _ in workers}
            assert heard == {Lost(ONE, 7, 1, True), Lost(TWO, 7, 1, True)}

    @scenario
    async def test_what_was_lost_and_sent_again_runs_elsewhere_and_has_one_output(self, layers: Layers) -> None:
        dead, other = layers.worker(f"{A}.0"), layers.worker(f"{B}.0")
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"))
            entry = take(dead)
            layers.release(A)
            await interface.append(receive(1, "x"))
            commit(other, take(other), done(1, "other"))
            commit(dead, entry, done(1, "dead"))
            await interface.hears(Lost(ONE, 1, 1, True), Died(A), done(1, "other"))
            await interface.hears_nothing_more()

    @scenario
    async def test_what_is_given_back_has_not_started_and_giving_it_twice_is_harmless(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(receive(7, "x", connection=TWO))
            await interface.append(request())
            entries = take_all(worker, 2)
            for _ in range(2):
                worker.release(entries)
                worker.settle()
            assert {(await interface.heard.get())[0] for _ in entries} == {
                Lost(ONE, 0, 1, False),
                Lost(TWO, 7, 1, False),
            }
            await interface.hears_nothing_more()
            assert [await interface.depth(entry.event.channel) for entry in entries] == [0, 0]
            assert worker.refused == 0

    @scenario
    async def test_what_was_committed_is_not_given_back(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"))
            entry = take(worker)
            commit(worker, entry, done(1))
            worker.release([entry])
            worker.settle()
            await interface.hears(done(1))
            await interface.hears_nothing_more()

    @scenario
    async def test_what_is_passed_over_is_gone_unanswered(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(request())
            entry = take(worker)
            for _ in range(2):
                worker.pass_over(entry.stream, entry.id)
                worker.settle()
            assert await interface.depth("http.request") == 0
            await interface.hears_nothing_more()
            assert worker.refused == 0

    @scenario
    async def test_reaping_has_each_last_will_run_once_behind_what_its_connection_still_has(
        self, layers: Layers
    ) -> None:
        worker = layers.worker()
        async with layers.interface() as dead, layers.interface(OTHER) as other:
            for connection in (ONE, TWO):
                await dead.append(connect(connection))
                commit(worker, take(worker), done(1, connection=connection), last_will=last_will(connection))
            await dead.append(receive(2, "x", connection=TWO))
            await dead.layer.stop()
            assert [layers.reap_interface(INTERFACE) for _ in range(2)] == [1, 1]
            turn, last = sorted(take_all(worker, 2), key=lambda entry: isinstance(entry.event, Disconnect))
            assert (turn.event, last.event) == (receive(2, "x", connection=TWO), disconnect(ONE))
            commit(worker, last, done(LAST_TURN), say("one has left"))
            commit(worker, turn, done(2, connection=TWO))
            assert worker.refused == 1, "nobody is there for the turn's reply"
            assert layers.reap_interface(INTERFACE) == 0
            last = take(worker)
            assert last.event == disconnect(TWO)
            commit(worker, last, done(LAST_TURN, connection=TWO), say("two has left"))
            await other.hears(say("one has left"), say("two has left"))
            assert layers.reap_interface(INTERFACE) == 0
            assert await other.depth("websocket.disconnect") == 0

    @scenario
    async def test_of_a_connections_last_wills_the_newest_is_run(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            for number, given in enumerate((last_will(reason="old"), last_will(reason="new"), b""), 1):
                await interface.append(receive(number, "x"))
                commit(worker, take(worker), done(number), last_will=given)
            layers.reap_interface(INTERFACE)
            assert take(worker).event == disconnect(reason="new")

    @scenario
    async def test_a_last_will_goes_to_the_pool_that_served_its_connection(self, layers: Layers) -> None:
        channels = ["websocket.receive.slow", "websocket.disconnect.slow"]
        worker = layers.worker(channels=channels)
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"), ".slow")
            commit(worker, take(worker), done(1), last_will=last_will())
            layers.reap_interface(INTERFACE)
            entry = take(worker)
            assert (entry.event, entry.stream.decode().endswith(channels[1])) == (disconnect(), True)

    @pytest.mark.parametrize("ending", ["the connection's last turn", "deregistered", "forgotten"])
    @scenario
    async def test_nothing_is_left_to_reap_behind_an_end_in_order(self, ending: str, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface, layers.interface(OTHER) as other:
            await interface.append(connect())
            commit(worker, take(worker), done(1), last_will=last_will())
            if ending == "deregistered":
                await interface.leave()
            elif ending == "forgotten":
                interface.layer.forget(disconnect().connection)
                await interface.depth("websocket.disconnect")  # asked after it, so answered after it
            else:
                await interface.append(disconnect(number=2))
                commit(worker, take(worker), done(2))
            assert layers.reap_interface(INTERFACE) == 0
            assert await other.depth("websocket.disconnect") == 0

    @scenario
    async def test_the_disconnect_of_a_dead_interface_outlives_its_worker_twice(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as dead, layers.interface(OTHER) as other:
            await dead.append(disconnect())
            await dead.leave()
            for left in (1, 1, 0):
                assert take(worker).event == disconnect()
                assert layers.release(A) == 1
                assert await other.depth("websocket.disconnect") == left

    @scenario
    async def test_the_disconnect_of_a_dead_interface_may_be_given_back_however_often(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as dead:
            await dead.append(disconnect())
            await dead.leave()
            for _ in range(4):
                worker.release([take(worker)])
                worker.settle()
            commit(worker, take(worker), done(LAST_TURN))
            assert worker.refused == 0

    @scenario
    async def test_letters_are_read_once_in_order_by_the_thread_that_they_are_for(self, layers: Layers) -> None:
        worker, other = layers.worker(f"{A}.0"), layers.worker(f"{A}.1")
        letters: list[WorkerMessage] = [
            Chunk(ONE, b"1-0", 0, b"body", False),
            Credit(ONE, b"1-0", 5),
            Gone(ONE, b"1-0"),
        ]
        async with layers.interface() as interface:
            for letter in letters[:2]:
                assert isinstance(await interface.post(worker.inbox, letter), bytes)
            assert worker.mail(None) == (True, letters[:2])
            await interface.post(worker.inbox, letters[2])
            assert worker.mail(None) == (True, letters[2:])
            assert worker.mail(None) == other.mail(None) == (True, [])

    @scenario
    async def test_a_letter_that_is_waited_for_ends_the_wait(self, layers: Layers) -> None:
        worker, letter = layers.worker(), Credit(ONE, b"1-0", 5)
        async with layers.interface() as interface:
            waiting = asyncio.create_task(asyncio.to_thread(worker.mail, Want(ONE, 1, b"1-0", worker.inbox, 5), 15))
            await interface.hears(Want(ONE, 1, b"1-0", worker.inbox, 5))
            await interface.post(worker.inbox, letter)
            assert await asyncio.wait_for(waiting, 60) == (True, [letter])

    @scenario
    async def test_a_letter_to_a_worker_that_is_no_more_is_answered_with_none(self, layers: Layers) -> None:
        dead, other = layers.worker(f"{A}.0"), layers.worker(f"{B}.0")
        async with layers.interface() as interface:
            layers.release(A)
            answers = [await interface.post(inbox, Gone(ONE, b"1-0")) for inbox in (dead.inbox, "absent", other.inbox)]
            assert answers[:2] == [None, None]
            assert answers[2] is not None

    @scenario
    async def test_parts_of_a_response_come_before_its_last_and_in_order(self, layers: Layers) -> None:
        worker = layers.worker()
        parts = [Response(ONE, number, 200, [], b"x", number < 3) for number in range(4)]
        async with layers.interface() as interface:
            await interface.append(request())
            entry = take(worker)
            assert [worker.mail(part) for part in parts[:3]] == [(True, [])] * 3
            commit(worker, entry, parts[3])
            await interface.hears(*parts)

    @scenario
    async def test_a_worker_hears_that_the_interface_is_gone(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.leave()
            assert worker.mail(Response(ONE, 0, 200, [], b"x", True)) == (False, [])

    @scenario
    async def test_what_is_sent_at_once_arrives_before_the_commit_and_leaves_the_letters_alone(
        self, layers: Layers
    ) -> None:
        worker, letter = layers.worker(), Credit(ONE, b"1-0", 5)
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"))
            await interface.post(worker.inbox, letter)
            entry = take(worker)
            worker.send_now(Frames(ONE, ["now", b"now"]))
            await interface.hears(Frames(ONE, ["now", b"now"]))
            worker.send_now(say("now"))
            await interface.hears(say("now"))
            commit(worker, entry, done(1))
            await interface.hears(done(1))
            assert worker.mail(None) == (True, [letter])

    @scenario
    async def test_an_event_is_removed_unless_a_worker_has_it(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(request())
            entry = take(worker)
            waiting = await interface.append(request(TWO))
            answers = [
                await interface.ask(interface.layer.remove, "http.request", id) for id in (entry.id, waiting, waiting)
            ]
            assert answers == [0, 1, 0]
            commit(worker, entry, response())
            assert worker.refused == 0
            assert await interface.depth("http.request") == 0

    @scenario
    async def test_a_channels_depth_is_all_that_is_not_committed(self, layers: Layers) -> None:
        worker = layers.worker(channels=["http.request.slow"])
        async with layers.interface() as interface:
            for connection in (ONE, TWO):
                await interface.append(request(connection), ".slow")
            take(worker)
            assert [await interface.depth(f"http.request{pool}") for pool in (".slow", "")] == [2, 0]

    @scenario
    async def test_an_audit_misses_what_is_neither_in_its_channel_nor_answered(self, layers: Layers) -> None:
        worker, gone = layers.worker(), list[str]()

        async def audit(interface: Interface, said: str, entry: bytes) -> None:
            interface.layer.audit("http.request", request(), entry, lambda: gone.append(said))
            await interface.depth("http.request")  # it is answered behind the audit

        async with layers.interface() as interface:
            entry = await interface.append(request())
            await audit(interface, "nobody has it", entry)
            take(worker)
            await audit(interface, "a worker has it", entry)
            assert gone == []
            entry = await interface.append(request(TWO))
            held = take(worker)
            worker.pass_over(held.stream, held.id)
            worker.settle()
            await audit(interface, "lost", entry)
            assert gone == ["lost"]

    @scenario
    async def test_an_audit_misses_nothing_while_its_reply_is_on_its_way(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            entry = await interface.append(request())
            commit(worker, take(worker), response())
            interface.layer.audit("http.request", request(), entry, lambda: interface.heard.put_nowait(("gone", None)))
            await interface.hears(response())

    @scenario
    async def test_a_worker_that_closes_sends_what_it_has(self, layers: Layers) -> None:
        worker = layers.worker()
        async with layers.interface() as interface:
            await interface.append(request())
            worker.commit(take(worker), response(), [])
            worker.close()
            await interface.hears(response())

    @scenario
    async def test_a_manifest_is_known_to_an_interface_that_starts_later(self, layers: Layers) -> None:
        manifest = Manifest(VERSION, "r1", True, [])
        async with layers.interface() as interface:
            assert interface.layer.manifest is None
        layers.worker().publish_manifest(manifest)
        async with layers.interface(OTHER) as interface:
            assert interface.layer.manifest == encode_manifest(manifest)

    @scenario
    async def test_a_job_is_sent_with_the_commit_of_an_event_and_not_by_one_that_is_refused(
        self, layers: Layers
    ) -> None:
        worker, jobs = layers.worker(), layers.worker(f"{B}.0", JOBS)
        async with layers.interface() as interface:
            await interface.append(receive(1, "x"))
            entry = take(worker)
            commit(worker, entry, done(1), job("a"), say("between"), job("b"))
            commit(worker, entry, done(2), job("refused"))
            await interface.hears(done(1), say("between"))
            assert [taken.event for taken in take_all(jobs, 2)] == [job("a"), job("b")]
            assert await interface.depth("background.thumbs") == 2

    @scenario
    async def test_what_a_job_produced_leaves_once_and_it_has_nobody_to_reply_to(self, layers: Layers) -> None:
        jobs = layers.worker(channels=JOBS)
        async with layers.interface() as interface:
            interface.layer.publish(job("a"))
            entry = await asyncio.to_thread(take, jobs)
            for _ in range(2):
                commit(jobs, entry, None, say("made"), job("b"))
            assert jobs.refused == 1
            assert take(jobs).event == job("b")
            await interface.hears(say("made"))
            await interface.hears_nothing_more()
            assert await interface.depth("background.thumbs") == 1

    @scenario
    async def test_a_delayed_job_is_never_early_however_it_was_sent(self, layers: Layers) -> None:
        jobs = layers.worker(channels=JOBS)
        async with layers.interface() as interface:
            sent_at = monotonic()
            jobs.send_now(job("first"))
            jobs.send_now(job("now", delay_milliseconds=300))
            commit(jobs, take(jobs), None, job("committed", delay_milliseconds=200))
            interface.layer.publish(job("published", delay_milliseconds=400))
            layers.beat()
            depth = await interface.depth("background.thumbs")
            assert depth == 0 or monotonic() - sent_at > 0.2
            heard: list[str] = []
            while len(heard) < 3:
                layers.beat()
                for entry in await asyncio.to_thread(jobs.read, 16):
                    assert isinstance(entry.event, Job)
                    assert monotonic() - sent_at >= entry.event.delay_milliseconds / 1000 - CLOCK_SECONDS
                    heard.append(entry.event.id)
            assert heard == ["job.committed", "job.now", "job.published"]

    @scenario
    async def test_a_dead_workers_jobs_run_again_counted_only_if_they_had_started(self, layers: Layers) -> None:
        dead, other = layers.worker(f"{A}.0", JOBS), layers.worker(f"{B}.0", JOBS)
        for content in ("started", "held"):
            dead.send_now(job(content))
        started, held = take_all(dead, 2)
        assert layers.release(A, started=(note(started),)) == 2
        again = take_all(other, 2)
        assert [entry.event for entry in again] == [job("started", attempt=2), job("held")]
        for entry in (started, held):
            commit(dead, entry, None, job("too late"))
        assert dead.refused == 2
        for entry in again:
            commit(other, entry, None)
        other.send_now(job("last"))
        assert take(other).event == job("last")

    @scenario
    async def test_a_job_that_three_workers_died_of_is_a_dead_letter_as_it_was_sent(self, layers: Layers) -> None:
        workers = [layers.worker(f"host.{number}.cc.0", JOBS) for number in range(4)]
        workers[0].send_now(job("poison", attempt=5))
        for number in range(3):
            entry = take(workers[number])
            assert entry.event == job("poison", attempt=5 + number)
            assert layers.release(f"host.{number}.cc") == 1
        assert layers.dead_letters() == [("background.thumbs", job("poison", attempt=5), "3 workers died of it")]
        workers[3].send_now(job("next"))
        assert take(workers[3]).event == job("next")

    @pytest.mark.slow
    @scenario
    async def test_of_dead_letters_the_oldest_go_when_they_are_too_many_bytes(self, layers: Layers) -> None:
        async with layers.interface() as interface:
            for number in range(1, 71):
                interface.layer.dead_letter("websocket.receive", receive(number, b"x" * (1 << 20)), "r")
                await interface.depth("websocket.receive")  # answered behind it
            numbers = [event.number for _, event, _ in layers.dead_letters() if isinstance(event, Receive)]
            assert numbers == list(range(71 - len(numbers), 71))
            assert 60 < len(numbers) < 64

    @scenario
    async def test_a_job_may_be_given_back_however_often(self, layers: Layers) -> None:
        worker, other = layers.worker(f"{A}.0", JOBS), layers.worker(f"{B}.0", JOBS)
        worker.send_now(job())
        take(worker)
        layers.release(A)
        for giver in (other, other, other, other):
            entry = take(giver)
            assert entry.event == job(attempt=2)
            giver.release([entry])
        assert layers.dead_letters() == []


class TestMemory(Contract):
    @pytest.fixture
    def layers(self) -> Layers:
        return MemoryLayers()


class TestRedis(Contract):
    @pytest.fixture
    def layers(self, url: str, name: str, worker: Workers, client: Any) -> Layers:
        return RedisLayers(url, name, worker, client)
