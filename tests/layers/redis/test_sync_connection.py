"""The blocking connection of sync code, on a real server and beside a peer that is none."""

import socket
import threading
import time
from typing import Any

import hiredis
import pytest
import redis

from asgictl.layers.redis import sync_connection as module
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.link import pack
from asgictl.layers.redis.sync_connection import SyncConnection
from tests.conftest import until


def test_answers_come_in_order_and_a_refusal_is_one(url: str) -> None:
    connection = SyncConnection(url)
    large = b"x" * 300_000
    connection.send(b"".join(pack(command) for command in [("ECHO", large), ("NONSENSE",), ("ECHO", "b")]))
    assert connection.receive() == large
    assert isinstance(connection.receive(), hiredis.ReplyError)
    assert connection.receive() == b"b"
    connection.close()
    assert connection.fileno() == -1


def test_one_that_was_cut_while_nobody_used_it_says_so(url: str, client: Any) -> None:
    connection = SyncConnection(url)
    assert not connection.was_cut()
    connection.send(pack(("CLIENT", "ID")))
    id = connection.receive()
    assert not connection.was_cut()
    client.client_kill_filter(_id=id)
    assert connection.was_cut()
    connection.close()


def test_a_redis_that_is_not_there_is_an_error_of_redis_py() -> None:
    with pytest.raises((redis.ConnectionError, OSError)):
        SyncConnection("unix:///absent")


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"", "was lost"), (b"HTTP/1.1 400 Bad Request\r\n", "malformed answer of Redis")],
    ids=["end", "junk"],
)
def test_a_peer_that_ends_or_talks_nonsense_is_a_lost_connection(url: str, said: bytes, words: str) -> None:
    connection, (ours, theirs) = SyncConnection(url), socket.socketpair()
    connection._socket = ours
    theirs.sendall(said)
    theirs.close()
    with pytest.raises(ConnectionError, match=words):
        connection.receive()
    ours.close()
    connection.close()


def test_a_silence_is_cut_by_another_thread_and_none_while_nothing_is_due(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = SyncConnection(url)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    connection.end_silence()
    connection.send(pack(("ECHO", "a")))
    assert connection.receive() == b"a"
    ended: list[Exception] = []

    def wait() -> None:
        try:
            connection.receive()
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: connection._silent_since > 0, "an answer is waited for")
    connection.end_silence()
    thread.join(60)
    assert len(ended) == 1
    connection.close()


def test_a_timeout_bounds_every_wait(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(endpoint(url)._options, "socket_timeout", 0.2)
    connection = SyncConnection(url)
    assert not connection.was_cut()
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's, whichever it is
        connection.receive()
    assert 0.15 < time.monotonic() - began < 10
    connection.close()
