"""The demo's ASGI part."""

import asyncio
from typing import Any

import pytest

from asgictl.demo import async_sleep


@pytest.mark.parametrize(("query", "status", "body"), [(b"ms=1", 200, b"slept"), (b"ms=x", 400, None)])
def test_the_coroutine_answers_as_the_views_do(query: bytes, status: int, body: bytes | None) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(async_sleep({"query_string": query}, None, send))
    start, end = sent
    assert start["status"] == status
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(end["body"])
    assert body in (None, end["body"])
