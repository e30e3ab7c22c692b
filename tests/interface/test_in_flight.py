"""Events on their way, with a layer that answers as it is told and a clock that the test turns."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from msgspec.structs import replace

from asgictl.interface.affinity import Route
from asgictl.interface.in_flight import RESEND_SECONDS, InFlight
from asgictl.layers.base import Answered, NotSent
from asgictl.wire.messages import Connect, Disconnect, Event, Lost, Receive, Request, Scope, encode

EVENT = Receive("i/1", 3, 1, b"", b"", ["x"], 0)
OTHER, THIRD = replace(EVENT, connection="i/2"), replace(EVENT, connection="i/3")
CONNECT = Connect("i/1", 1, 1, b"", b"")
POST = Request("i/1", 1, Scope("POST", "http", "1.1", "", "/", b"/", b"", [], None, None), b"")
AWAY = NotSent("Redis is unavailable")
UNANSWERED = ConnectionError("the connection to Redis was lost")
FULL = RuntimeError("OOM command not allowed when used memory > 'maxmemory'.")


class Layer:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.added: list[Event] = []
        self.channels: list[str] = []
        self.answers: list[Answered] = []
        self.own: list[bool] = []
        self.are_repeatable: list[bool] = []
        self.withdrawn = 0
        self.audits: list[bytes] = []
        self.gone: list[Callable[[], None]] = []
        self.removals: list[tuple[str, bytes]] = []
        self.removed: list[Answered] = []
        self.depths: dict[str, Answered] = {}

    def append(
        self, channel: str, event: Event, answered: Answered, *, repeatable: bool, is_own: bool = False
    ) -> "Layer":
        self.added.append(event)
        self.channels.append(channel)
        self.answers.append(answered)
        self.own.append(is_own)
        self.are_repeatable.append(repeatable)
        self.size = len(encode(event)[1])
        return self

    def withdraw(self) -> None:
        self.withdrawn += 1

    def remove(self, channel: str, entry: bytes, answered: Answered) -> None:
        self.removals.append((channel, entry))
        self.removed.append(answered)

    def depth(self, channel: str, answered: Answered) -> None:
        self.depths[channel] = answered

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        assert (channel, event) in zip(self.channels, self.added, strict=True)
        self.audits.append(entry)
        self.gone.append(gone)


class Owner:
    """Sends again what it was told to."""

    route: Route | None = None

    def __init__(self, *again: Event, repeatable: bool = True, patient: bool = True, pool: str = "") -> None:
        self.again = list(again)
        self.heard: list[bool] = []
        self.refusals = 0
        self.repeatable = repeatable
        self.patient = patient
        self.pool = pool

    def lost(self, started: bool) -> Event | None:
        self.heard.append(started)
        return self.again.pop(0) if self.again else None

    def refused(self, for_good: bool) -> bool:
        self.refusals += 1
        self.was_refused_for_good = for_good
        return self.patient and not for_good


class Homes:
    """A Route to workers, one after another; tries again when the test says so."""

    def __init__(self, *homes: str) -> None:
        self.homes = list(homes)
        self.again: list[Callable[[], None]] = []

    def home(self, _channel: str) -> str:
        return self.homes[0] if self.homes else ""

    def refused(self, again: Callable[[], None]) -> None:
        self.homes.pop(0)
        self.again.append(again)


def owner_at(*homes: str) -> Owner:
    made = Owner(CONNECT)
    made.route = Homes(*homes)
    return made


class Sky:
    """InFlight and all that surrounds them."""

    def __init__(self, capacity: int = 100, capacity_bytes: int = 1 << 30) -> None:
        self.now = 100.0
        loop: Any = asyncio.get_running_loop()
        loop.time = lambda: self.now
        self.layer = Layer()
        layer: Any = self.layer
        self.refusals: list[str] = []
        self.flights = InFlight(layer, capacity, self.refusals.append, capacity_bytes)

    def send(self, *events: Event, owner: Owner | None = None) -> None:
        for event in events:
            self.flights.send(event, owner or Owner())

    def answer(self, *entries: bytes) -> None:
        """Answer the newest sendings."""
        for entry, answered in zip(reversed(entries), reversed(self.layer.answers), strict=False):
            answered(entry)

    def is_clean(self) -> bool:
        """Whether nothing is remembered of any event."""
        flights = self.flights
        counts = {count for each in flights._channels.values() for count in (each.open, each.bytes)}
        return not flights._in_flight and not any(each.waiting for each in flights._channels.values()) and counts <= {0}

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def scenario(test: Callable[[Sky], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await test(Sky())

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@scenario
async def test_an_event_that_could_not_be_added_is_sent_until_it_is(sky: Sky) -> None:
    sky.flights.send(EVENT, Owner())
    for _ in range(3):
        sky.layer.answers[-1](AWAY)
        assert not sky.flights.added("i/1")
        await sky.pass_time(RESEND_SECONDS)
    sky.layer.answers[-1](b"1-0")
    await sky.pass_time(60)
    assert sky.layer.added == [EVENT] * 4
    assert sky.flights.added("i/1")


@scenario
async def test_nothing_is_sent_again_after_landing(sky: Sky) -> None:
    owner = Owner(EVENT)
    sky.flights.send(EVENT, owner)
    sky.layer.answers[0](AWAY)
    sky.flights.complete("i/1")
    sky.flights.complete("i/1")
    await sky.pass_time(60)
    sky.layer.answers[0](b"1-0")
    sky.flights.lost(Lost("i/1", 3, 1, False))
    sky.flights.forgotten()
    sky.flights.audit()
    assert (sky.layer.added, sky.layer.audits, owner.heard) == ([EVENT], [], [])
    assert not sky.flights.added("i/1")
    assert sky.is_clean()


@scenario
async def test_an_answer_that_comes_after_the_next_event_of_its_connection_sends_nothing(sky: Sky) -> None:
    following = replace(EVENT, number=4)
    sky.flights.send(EVENT, Owner())
    sky.flights.complete("i/1")
    sky.flights.send(following, Owner())
    sky.layer.answers[0](AWAY)
    await sky.pass_time(60)
    assert sky.layer.added == [EVENT, following]


@scenario
async def test_what_a_dead_worker_held_is_sent_again_as_its_owner_says(sky: Sky) -> None:
    again = replace(EVENT, attempt=2)
    owner = Owner(again)
    sky.flights.send(EVENT, owner)
    sky.layer.answers[0](b"1-0")
    sky.flights.lost(Lost("i/1", 3, 1, True))
    assert (sky.layer.added, owner.heard) == ([EVENT, again], [True])
    assert not sky.flights.added("i/1")
    assert sky.flights._channels[EVENT.channel].open == 1
    sky.flights.lost(Lost("i/1", 3, 2, False))
    assert (len(sky.layer.added), owner.heard) == (2, [True, False])
    assert sky.is_clean(), "its owner gave up"


@pytest.mark.parametrize(
    "lost", [Lost("i/1", 3, 1, True), Lost("i/1", 2, 2, True), Lost("i/1", 4, 2, True), Lost("i/2", 3, 2, True)]
)
def test_a_word_about_any_but_the_newest_attempt_is_passed_over(lost: Lost) -> None:
    async def main() -> None:
        sky, owner = Sky(), Owner(EVENT)
        sky.flights.send(replace(EVENT, attempt=2), owner)
        sky.flights.lost(lost)
        assert (len(sky.layer.added), owner.heard) == (1, [])

    asyncio.run(main())


@scenario
async def test_a_request_is_known_by_its_attempt_alone(sky: Sky) -> None:
    sky.flights.send(POST, Owner(POST))
    sky.flights.lost(Lost("i/1", 0, 1, False))
    assert sky.layer.added == [POST] * 2


@scenario
async def test_all_that_is_open_is_sent_again_when_redis_has_forgotten_it(sky: Sky) -> None:
    events = [Connect(f"i/{number}", 1, 1, b"", b"") for number in range(3)]
    for number, event in enumerate(events):
        sky.flights.send(event, Owner())
        sky.layer.answers[-1](b"%d-0" % number)
    sky.flights.complete("i/1")
    sky.flights.forgotten()
    assert sky.layer.added == [*events, events[0], events[2]]
    assert not sky.flights.added("i/0")


@scenario
async def test_an_open_event_is_looked_for_at_growing_intervals(sky: Sky) -> None:
    sky.flights.send(EVENT, Owner())
    sky.layer.answers[0](b"1-0")
    seen = []
    for second in range(1, 33):
        await sky.pass_time(1)
        before = len(sky.layer.audits)
        sky.flights.audit()
        seen += [second] * (len(sky.layer.audits) - before)
    assert seen == [1, 3, 7, 15, 31]


@scenario
async def test_an_event_that_was_not_found_is_sent_again_and_one_that_redis_has_not_taken_is_not_looked_for(
    sky: Sky,
) -> None:
    sky.flights.send(EVENT, Owner())
    await sky.pass_time(1)
    sky.flights.audit()
    assert sky.layer.audits == []
    sky.layer.answers[0](b"1-0")
    sky.flights.audit()
    sky.layer.gone[0]()
    assert sky.layer.added == [EVENT] * 2
    sky.layer.answers[1](b"2-0")
    await sky.pass_time(2)
    sky.flights.audit()
    assert sky.layer.audits == [b"1-0", b"2-0"]
    sky.flights.complete("i/1")
    sky.layer.gone[1]()
    assert len(sky.layer.added) == 2


@scenario
async def test_an_event_goes_to_the_channel_of_its_owners_pool(sky: Sky) -> None:
    sky.send(EVENT, owner=Owner(pool=".reports"))
    sky.answer(b"1-0")
    sky.flights.skip("i/1", lambda: None)
    assert sky.layer.channels == ["websocket.receive.reports"]
    assert sky.layer.removals == [("websocket.receive.reports", b"1-0")]


@pytest.mark.parametrize("event", [POST, EVENT])
@pytest.mark.parametrize("loss", ["unanswered", "forgotten", "audit"])
def test_what_may_have_run_and_must_not_run_twice_is_never_sent_again(event: Event, loss: str) -> None:
    async def main() -> None:
        sky, owner = Sky(), Owner(repeatable=False)
        sky.send(event, owner=owner)
        sky.layer.answers[0](UNANSWERED if loss == "unanswered" else b"1-0")
        await sky.pass_time(1)
        if loss == "forgotten":
            sky.flights.forgotten()
        sky.flights.audit()
        for gone in sky.layer.gone if loss == "audit" else ():
            gone()
        await sky.pass_time(60)
        sky.flights.forgotten()
        assert (sky.layer.added, owner.heard) == ([event], [True])
        assert sky.is_clean()

    asyncio.run(main())


@pytest.mark.parametrize("event", [POST, EVENT])
@pytest.mark.parametrize("answer", [AWAY, FULL])
def test_what_must_not_run_twice_is_sent_again_when_redis_has_certainly_not_taken_it(
    event: Event, answer: Exception
) -> None:
    async def main() -> None:
        sky, owner = Sky(), Owner(repeatable=False)
        sky.send(event, owner=owner)
        for _ in range(3):
            sky.layer.answers[-1](answer)
            sky.flights.forgotten()  # as when Redis comes back with nothing, before the next attempt
            await sky.pass_time(RESEND_SECONDS)
        sky.answer(b"1-0")
        assert (sky.layer.added, owner.heard) == ([event] * 4, [])
        assert sky.flights.added("i/1")

    asyncio.run(main())


@scenario
async def test_what_is_on_its_way_is_the_layers_to_send_again(sky: Sky) -> None:
    sky.send(EVENT)
    sky.flights.forgotten()
    assert sky.layer.added == [EVENT]
    assert sky.layer.are_repeatable == [True]
    sky.flights.complete("i/1")
    assert sky.layer.withdrawn == 1, "nobody waits for it any more"


@scenario
async def test_an_owner_that_does_not_wait_for_room_in_redis_is_asked_once_and_forgotten(sky: Sky) -> None:
    owner = Owner(patient=False)
    sky.send(POST, owner=owner)
    sky.layer.answers[0](FULL)
    await sky.pass_time(60)
    assert (len(sky.layer.added), owner.refusals, owner.heard) == (1, 1, [])
    assert sky.is_clean()


@pytest.mark.parametrize(("answer", "ends"), [(RuntimeError("NOPERM"), True), (FULL, False)])
def test_what_is_refused_for_long_ends_unless_redis_may_find_room(answer: Exception, ends: bool) -> None:
    async def main() -> None:
        sky, owner = Sky(), Owner()
        sky.send(EVENT, owner=owner)
        for _ in range(60):
            if len(sky.layer.answers) == len(sky.layer.added):
                sky.layer.answers[-1](answer)
            await sky.pass_time(RESEND_SECONDS)
        assert owner.was_refused_for_good is ends
        assert sky.is_clean() is ends

    asyncio.run(main())


@scenario
async def test_a_refusal_that_comes_after_landing_concerns_nobody(sky: Sky) -> None:
    owner = Owner()
    sky.send(POST, owner=owner)
    sky.flights.complete("i/1")
    sky.layer.answers[0](FULL)
    assert owner.refusals == 0


@scenario
async def test_an_event_that_no_worker_has_taken_is_skipped(sky: Sky) -> None:
    skipped: list[str] = []
    sky.send(CONNECT)
    sky.answer(b"1-0")
    sky.flights.skip("i/1", lambda: skipped.append("i/1"))
    sky.layer.removed[0](1)
    assert (sky.layer.removals, skipped) == ([(CONNECT.channel, b"1-0")], ["i/1"])
    assert sky.is_clean()


@pytest.mark.parametrize("answer", [0, ConnectionError("lost"), RuntimeError("refused")])
def test_an_event_that_a_worker_has_taken_goes_on(answer: object) -> None:
    async def main() -> None:
        sky, skipped = Sky(), list[str]()
        sky.send(CONNECT)
        sky.answer(b"1-0")
        sky.flights.skip("i/1", lambda: skipped.append("i/1"))
        sky.layer.removed[0](answer)
        assert not skipped
        assert sky.flights.added("i/1")

    asyncio.run(main())


@scenario
async def test_an_event_that_is_on_its_way_to_redis_is_skipped_once_it_has_arrived(sky: Sky) -> None:
    skipped: list[str] = []
    sky.send(CONNECT)
    sky.flights.skip("i/1", lambda: skipped.append("i/1"))
    sky.layer.answers[0](AWAY)
    assert sky.layer.removals == []
    await sky.pass_time(RESEND_SECONDS)
    sky.answer(b"1-0")
    sky.layer.removed[0](1)
    assert skipped == ["i/1"]
    assert sky.is_clean()


@scenario
async def test_what_was_skipped_and_landed_is_still_taken_out_of_redis(sky: Sky) -> None:
    sky.send(POST)
    sky.flights.skip("i/1", lambda: None)
    sky.flights.complete("i/1")
    sky.answer(b"1-0")
    sky.layer.removed[0](1)
    assert sky.layer.removals == [(POST.channel, b"1-0")]
    assert sky.is_clean()


@scenario
async def test_an_event_that_was_sent_again_meanwhile_is_not_skipped_by_the_removal_of_its_first_sending(
    sky: Sky,
) -> None:
    skipped: list[str] = []
    sky.send(CONNECT)
    sky.answer(b"1-0")
    sky.flights.skip("i/1", lambda: skipped.append("i/1"))
    sky.flights.forgotten()
    sky.layer.removed[0](1)
    assert not skipped
    sky.answer(b"2-0")
    sky.layer.removed[1](1)
    assert skipped == ["i/1"]


@scenario
async def test_skipping_what_is_not_open_does_nothing(sky: Sky) -> None:
    sky.flights.skip("i/1", lambda: pytest.fail("it never was sent"))
    assert sky.layer.removals == []


def crowded(*events: Event) -> Sky:
    """A sky with room for one event in each channel."""
    sky = Sky(capacity=1)
    sky.send(*events)
    return sky


def test_frames_wait_while_their_channel_is_full_and_go_on_in_order_of_arrival() -> None:
    async def main() -> None:
        sky = crowded(EVENT, OTHER, THIRD)
        assert sky.layer.added == [EVENT]
        assert sky.flights.full(EVENT.channel)
        for event, following in ((EVENT, OTHER), (OTHER, THIRD)):
            sky.flights.complete(event.connection)
            assert sky.layer.added[-1] == following
        sky.flights.complete("i/3")
        assert sky.layer.added == [EVENT, OTHER, THIRD]
        assert sky.is_clean()

    asyncio.run(main())


def test_only_frames_wait_and_one_channel_does_not_hold_up_another() -> None:
    async def main() -> None:
        sky = crowded(EVENT, OTHER)
        ends: list[Event] = [Connect("i/5", 1, 1, b"", b""), Disconnect("i/6", 2, 1, b"", b"", 1000, "")]
        sky.send(*ends, *ends)
        sky.send(THIRD, owner=Owner(pool=".reports"))
        assert sky.layer.added == [EVENT, *ends, *ends, THIRD]

    asyncio.run(main())


def test_a_frame_that_comes_later_does_not_overtake_those_that_wait() -> None:
    async def main() -> None:
        sky = crowded(EVENT, OTHER)
        sky.flights._capacity = 2  # as when another interface's events have left the channel
        sky.send(THIRD)
        assert sky.layer.added == [EVENT]
        sky.layer.depths.clear()
        sky.flights.audit()
        sky.layer.depths[EVENT.channel](1)
        assert sky.layer.added == [EVENT, OTHER]

    asyncio.run(main())


def test_a_waiting_event_that_lands_leaves_no_trace() -> None:
    async def main() -> None:
        sky = crowded(EVENT, OTHER, THIRD)
        for event in (OTHER, THIRD, EVENT):
            sky.flights.complete(event.connection)
            assert all(each.open >= 0 for each in sky.flights._channels.values())
        assert sky.is_clean()
        assert sky.layer.added == [EVENT]

    asyncio.run(main())


def test_a_waiting_event_was_not_forgotten_for_redis_never_had_it() -> None:
    async def main() -> None:
        sky, owner = Sky(capacity=1), Owner(repeatable=False)
        sky.send(EVENT, OTHER, owner=owner)
        sky.layer.answers[0](b"1-0")
        sky.flights.forgotten()
        assert sky.layer.added == [EVENT, OTHER], "the first is given up, the second takes its place"
        assert owner.heard == [True]
        assert sky.flights._channels[EVENT.channel].open == 1

    asyncio.run(main())


@pytest.mark.parametrize(("depth", "full"), [(1, False), (2, True), (0, False), (AWAY, False)])
def test_what_other_interfaces_have_in_a_channel_counts(depth: object, full: bool) -> None:
    async def main() -> None:
        sky = Sky(capacity=2)
        sky.send(EVENT)
        sky.flights.audit()
        sky.layer.depths[EVENT.channel](depth)
        assert sky.flights.full(EVENT.channel) is full

    asyncio.run(main())


def test_waiting_events_go_on_when_another_interfaces_have_left_the_channel() -> None:
    async def main() -> None:
        sky = Sky(capacity=2)
        sky.send(EVENT)
        sky.flights.audit()
        sky.layer.depths[EVENT.channel](2)
        sky.send(OTHER)
        sky.flights.audit()
        sky.layer.depths[EVENT.channel](1)
        assert sky.layer.added == [EVENT, OTHER]

    asyncio.run(main())


SIZE = len(encode(EVENT)[1])


def test_a_channel_is_full_too_when_its_events_are_too_many_bytes() -> None:
    async def main() -> None:
        sky = Sky(capacity_bytes=2 * SIZE)
        sky.send(EVENT)
        assert not sky.flights.full(EVENT.channel)
        sky.send(OTHER, THIRD)
        assert sky.layer.added == [EVENT, OTHER], "a frame waits"
        assert sky.flights.full(EVENT.channel)
        assert not sky.flights.full(EVENT.channel + ".reports")
        sky.flights.complete("i/1")
        assert sky.layer.added == [EVENT, OTHER, THIRD]
        for event in (OTHER, THIRD):
            sky.flights.complete(event.connection)
        assert sky.is_clean()

    asyncio.run(main())


def test_one_event_goes_however_large_it_is() -> None:
    async def main() -> None:
        sky = Sky(capacity_bytes=1)
        sky.send(EVENT, OTHER)
        assert sky.layer.added == [EVENT]
        sky.flights.complete("i/1")
        assert sky.layer.added == [EVENT, OTHER]

    asyncio.run(main())


@pytest.mark.parametrize("loss", ["away", "forgotten", "lost"])
def test_an_event_that_is_sent_again_counts_once(loss: str) -> None:
    async def main() -> None:
        sky, again = Sky(capacity_bytes=2 * SIZE), replace(EVENT, attempt=2, frames=["longer"])
        sky.send(EVENT, owner=Owner(again))
        if loss == "away":
            sky.answer(AWAY)  # type: ignore[arg-type]
            await sky.pass_time(RESEND_SECONDS)
        elif loss == "forgotten":
            sky.answer(b"1-0")
            sky.flights.forgotten()
        else:
            sky.flights.lost(Lost("i/1", 3, 1, True))
        assert len(sky.layer.added) == 2
        assert sky.flights._channels[EVENT.channel].bytes == len(encode(sky.layer.added[-1])[1])
        sky.flights.complete("i/1")
        assert sky.is_clean()

    asyncio.run(main())


def test_what_was_let_go_of_is_not_sent_again_and_nothing_of_what_waited_goes() -> None:
    async def main() -> None:
        sky = crowded(EVENT, OTHER)
        sky.flights.clear()
        sky.layer.answers[0](AWAY)
        sky.flights.complete("i/1")
        sky.flights.complete("i/2")
        await sky.pass_time(60)
        sky.flights.forgotten()
        assert sky.layer.added == [EVENT]
        assert sky.is_clean()

    asyncio.run(main())


@scenario
async def test_an_event_goes_to_the_own_channel_of_its_worker_and_counts_with_the_channel_beside_it(sky: Sky) -> None:
    sky.flights = InFlight(cast(Any, sky.layer), 1, sky.refusals.append)
    sky.send(CONNECT, owner=owner_at("w.asgi"))
    assert (sky.layer.channels, sky.layer.own) == (["websocket.connect@w.asgi"], [True])
    assert sky.flights.full("websocket.connect")
    sky.answer(b"1-0")
    await sky.pass_time(2)
    sky.flights.audit()
    assert list(sky.layer.depths) == ["websocket.connect"]
    sky.flights.skip("i/1", lambda: None)
    assert sky.layer.removals == [("websocket.connect@w.asgi", b"1-0")]
    sky.flights.complete("i/1")
    assert sky.is_clean()


@pytest.mark.parametrize("refusal", [None, RuntimeError("ERR The stream has exhausted the last possible ID")])
def test_what_a_worker_refuses_goes_on_to_the_next_and_at_last_to_any(refusal: object) -> None:
    @scenario
    async def test(sky: Sky) -> None:
        owner = owner_at("a.asgi", "b.asgi", "c.asgi", "d.asgi")
        route = cast(Homes, owner.route)
        sky.send(CONNECT, owner=owner)
        for _ in range(3):
            sky.layer.answers[-1](refusal)
            route.again.pop()()
        names = [f"websocket.connect@{each}.asgi" for each in "abc"]
        assert sky.layer.channels == [*names, "websocket.connect"]
        sky.answer(b"1-0")
        assert (sky.refusals, owner.refusals, owner.heard) == ([], 0, [])
        sky.flights.complete("i/1")
        assert sky.is_clean()

    test()


@scenario
async def test_what_is_over_when_a_worker_refuses_it_goes_nowhere(sky: Sky) -> None:
    owner = owner_at("a.asgi")
    sky.send(CONNECT, owner=owner)
    sky.layer.answers[-1](None)
    sky.flights.complete("i/1")
    cast(Homes, owner.route).again.pop()()
    assert len(sky.layer.added) == 1


@scenario
async def test_a_cut_is_no_refusal_and_what_is_lost_asks_its_route_anew(sky: Sky) -> None:
    owner = owner_at("a.asgi", "b.asgi")
    route = cast(Homes, owner.route)
    sky.send(CONNECT, owner=owner)
    sky.answer(b"1-0")
    route.homes.pop(0)
    sky.flights.lost(Lost("i/1", 1, 1, started=False))
    assert sky.layer.channels == ["websocket.connect@a.asgi", "websocket.connect@b.asgi"]
    sky.layer.answers[-1](UNANSWERED)
    assert (route.again, owner.heard) == ([], [False, True])
