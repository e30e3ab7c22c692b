"""What of the link needs no Redis."""

import asyncio

from asgictl.layers.base import NotSent
from asgictl.layers.link import Link, pack
from tests.conftest import scenario


def test_a_command_is_packed_as_redis_has_it() -> None:
    assert pack(("SET", b"k", 1)) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n"


@scenario
async def test_a_command_without_a_connection_fails_after_its_caller_has_gone_on() -> None:
    heard: list[object] = []
    Link("redis://h").call("PING", answered=heard.append)
    assert heard == []
    await asyncio.sleep(0)
    assert [type(reply) for reply in heard] == [NotSent]
