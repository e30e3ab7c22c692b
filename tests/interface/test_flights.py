"""Events on their way, with a layer that answers as it is told and a clock that the test turns."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from asgictl.interface.flights import RESEND_SECONDS, Flights
from asgictl.layers.base import Answered
from asgictl.messages import Connect, Event, Lost, Receive, Request, Scope

EVENT = Receive("i/1", 3, 1, b"", b"", ["x"], 0)
AWAY = ConnectionError("Redis is away")


class Layer:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.added: list[Event] = []
        self.answers: list[Answered] = []
        self.audits: list[bytes] = []
        self.gone: list[Callable[[], None]] = []

    def append(self, event: Event, answered: Answered) -> None:
        self.added.append(event)
        self.answers.append(answered)

    def audit(self, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        assert event in self.added
        self.audits.append(entry)
        self.gone.append(gone)


class Owner:
    """Sends again what it was told to."""

    def __init__(self, *again: Event) -> None:
        self.again = list(again)
        self.heard: list[bool] = []

    def lost(self, started: bool) -> Event | None:
        self.heard.append(started)
        return self.again.pop(0) if self.again else None


class Sky:
    """Flights and all that surrounds them."""

    def __init__(self) -> None:
        self.now = 100.0
        loop: Any = asyncio.get_running_loop()
        loop.time = lambda: self.now
        self.layer = Layer()
        layer: Any = self.layer
        self.flights = Flights(layer)

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
    sky.flights.land("i/1")
    sky.flights.land("i/1")
    await sky.pass_time(60)
    sky.layer.answers[0](b"1-0")
    sky.flights.lost(Lost("i/1", 3, 1, False))
    sky.flights.forgotten()
    sky.flights.audit()
    assert (sky.layer.added, sky.layer.audits, owner.heard) == ([EVENT], [], [])
    assert not sky.flights.added("i/1")
    assert sky.flights.open[EVENT.channel] == 0


@scenario
async def test_an_answer_that_comes_after_the_next_event_of_its_connection_sends_nothing(sky: Sky) -> None:
    following = replace(EVENT, number=4)
    sky.flights.send(EVENT, Owner())
    sky.flights.land("i/1")
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
    assert sky.flights.open[EVENT.channel] == 1
    sky.flights.lost(Lost("i/1", 3, 2, False))
    assert (len(sky.layer.added), owner.heard) == (2, [True, False])
    assert sky.flights.open[EVENT.channel] == 0, "its owner gave up"


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
    request = Request("i/1", 1, Scope("GET", "http", "1.1", "", "/", b"/", b"", [], None, None), b"")
    sky.flights.send(request, Owner(request))
    sky.flights.lost(Lost("i/1", 0, 1, False))
    assert sky.layer.added == [request] * 2


@scenario
async def test_all_that_is_open_is_sent_again_when_redis_has_forgotten_it(sky: Sky) -> None:
    events = [Connect(f"i/{number}", 1, 1, b"", b"") for number in range(3)]
    for number, event in enumerate(events):
        sky.flights.send(event, Owner())
        sky.layer.answers[-1](b"%d-0" % number)
    sky.flights.land("i/1")
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
    sky.flights.land("i/1")
    sky.layer.gone[1]()
    assert len(sky.layer.added) == 2
