"""A body that is too large for the application inside the server."""

import asyncio
from collections import deque
from collections.abc import MutableMapping
from contextlib import nullcontext
from typing import Any

import pytest

from asgictl.inprocess.limited_body import LimitedBody
from asgictl.interface.pending_request import Aborted

ASGIMessage = MutableMapping[str, Any]
GONE = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}


class Request:
    """A body of up to ten bytes, between an application and its server."""

    def __init__(self, *bodies: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.incoming: deque[ASGIMessage] = deque()
        self.incoming.extend({"type": "http.request", "body": body, "more_body": True} for body in bodies)
        self.sent: list[ASGIMessage] = []
        self.body = LimitedBody({"headers": headers or []}, self.receive, self.send, 10)

    async def receive(self) -> ASGIMessage:
        return self.incoming.popleft()

    async def send(self, message: ASGIMessage) -> None:
        self.sent.append(message)

    async def reads(self, times: int) -> list[ASGIMessage]:
        """What the application receives."""
        return [await self.body.receive() for _ in range(times)]

    @property
    def statuses(self) -> list[int]:
        return [message["status"] for message in self.sent if message["type"] == "http.response.start"]


async def turns() -> None:
    """Let the loop come round: a start waits so long for a body that may be a mistake."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_body_up_to_the_limit_passes_as_it_is() -> None:
    request = Request(b"12345", b"67890", b"")
    messages = list(request.incoming)
    assert asyncio.run(request.reads(3)) == messages
    assert request.sent == []


def test_past_the_limit_the_client_hears_413_and_the_application_that_the_client_has_gone() -> None:
    request = Request(b"12345", b"678901", b"never read")
    assert asyncio.run(request.reads(3))[1:] == [GONE, GONE]
    assert request.statuses == [413]
    assert request.sent[-1] == {"type": "http.response.body", "body": b"The body is larger than 10 bytes.\n"}
    assert len(request.incoming) == 1


def test_what_the_application_answers_after_a_413_goes_nowhere() -> None:
    async def main() -> list[int]:
        request = Request(b"12345678901")
        await request.reads(1)
        await request.body.send(START)
        return request.statuses

    assert asyncio.run(main()) == [413]


def test_a_response_that_has_begun_is_cut_off_instead() -> None:
    async def main() -> list[ASGIMessage]:
        request = Request(b"12345678901")
        await request.body.send(START)
        await turns()
        assert await request.reads(1) == [GONE]
        await request.body.send({"type": "http.response.body", "body": b"the end"})
        return request.sent

    assert asyncio.run(main()) == [START]


def test_a_head_is_checked_once_and_goes_on_as_it_was_checked() -> None:
    async def main() -> list[ASGIMessage]:
        request = Request()
        headers = (each for each in [(b"X-A", b"1"), (b"transfer-encoding", b"chunked")])
        await request.body.send({**START, "headers": headers})
        await turns()
        return request.sent

    assert asyncio.run(main()) == [{**START, "headers": [(b"x-a", b"1")]}]


@pytest.mark.parametrize("status", [204, 304])
def test_where_no_body_follows_none_is_sent(status: int) -> None:
    async def main() -> list[ASGIMessage]:
        request = Request()
        await request.body.send({**START, "status": status, "headers": [(b"content-length", b"5")]})
        await request.body.send({"type": "http.response.body", "body": b"hello"})
        return request.sent

    assert asyncio.run(main()) == [{**START, "status": status}, {"type": "http.response.body", "body": b""}]


@pytest.mark.parametrize(("length", "too_large"), [(b"10", False), (b"11", True)])
def test_a_length_that_is_too_large_is_known_before_anything_is_read(length: bytes, too_large: bool) -> None:
    assert Request(headers=[(b"content-length", length)]).body.is_too_large is too_large


def test_a_client_that_leaves_is_told_of() -> None:
    request = Request()
    request.incoming.append(GONE)
    assert asyncio.run(request.reads(1)) == [GONE]
    assert request.sent == []


def test_a_failed_application_is_answered_for_until_its_response_has_begun() -> None:
    async def main() -> list[int]:
        request = Request()
        await request.body.fail()
        assert request.sent[-1] == {"type": "http.response.body", "body": b"Internal Server Error\n"}
        return request.statuses

    assert asyncio.run(main()) == [500]


@pytest.mark.parametrize("more", [True, False])
def test_a_response_that_has_begun_is_cut_off_and_one_that_is_complete_is_left_alone(more: bool) -> None:
    async def main() -> None:
        request = Request()
        await request.body.send(START)
        await request.body.send({"type": "http.response.body", "body": b"x", "more_body": more})
        assert request.body.has_ended is not more
        await request.body.fail()

    with pytest.raises(Aborted) if more else nullcontext():
        asyncio.run(main())


def test_a_response_that_nobody_waits_for_counts_as_ended() -> None:
    async def main() -> None:
        request = Request()
        request.incoming.append(dict(GONE))
        await request.body.receive()
        assert request.body.has_ended
        await request.body.send(START)
        assert request.body.has_ended

    asyncio.run(main())
