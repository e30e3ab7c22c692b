"""What of the link needs no Redis."""

import asyncio
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

from asgictl.layers.base import NotSent
from asgictl.layers.redis.link import Link, pack
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


@scenario
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"LOADING Redis is loading the dataset in memory", NotSent),
        (b"READONLY You can't write against a read only replica.", NotSent),
        (b"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't.", NotSent),
        (b"MISCONF Errors writing to the AOF file: No space left on device", NotSent),
        (b"MISCONF Errors writing to the AOF file: No space left script: 402e, on @user_script:1.", NotSent),
        (b"ERR Error running script (call to f_4): @user_script:1: @user_script: 1: -MISCONF Errors", NotSent),
        (b"NOREPLICAS Not enough good replicas to write.", NotSent),
        (b"CLUSTERDOWN The cluster is down", NotSent),
        (b"OOM command not allowed when used memory > 'maxmemory'.", hiredis.ReplyError),
    ],
)
async def test_what_a_redis_that_is_not_yet_itself_refuses_was_not_sent(answer: bytes, kind: type) -> None:
    link, heard = Link("redis://h"), list[object]()
    transport: Any = SimpleNamespace(write=lambda _data: None)
    link._transport = transport
    for _ in range(2):
        link.call("PING", answered=heard.append)
    link.data_received(b"-" + answer + b"\r\n+PONG\r\n")
    assert (type(heard[0]), str(heard[0])) == (kind, answer.decode())
    assert heard[1] == b"PONG"
