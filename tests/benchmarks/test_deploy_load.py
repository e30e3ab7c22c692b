"""What clients of deploys count as failed."""

import asyncio
import threading
from multiprocessing import Pipe

import pytest

from benchmarks.deploy_load import CLIENTS, FRESH, KEPT, STOP, Clients

SECONDS = 1.0


def answering(headers: bytes) -> Clients:
    """Return clients that have asked a server for a while, which closes after each answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % headers)
        finally:
            writer.close()

    async def main() -> Clients:
        ours, theirs = Pipe()
        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            clients = Clients(server.sockets[0].getsockname()[1], theirs)
            timer = threading.Timer(SECONDS, ours.send, [STOP])
            timer.start()
            await clients.run(0)
            timer.join()
        ours.close()
        theirs.close()
        return clients

    return asyncio.run(main())


@pytest.mark.slow
def test_a_connection_that_was_closed_silently_fails_the_next_request() -> None:
    counts = answering(b"").counts
    assert counts.failed[KEPT] >= CLIENTS[KEPT]
    assert counts.unannounced == counts.failed[KEPT]
    assert counts.failed[FRESH] == 0 < counts.requests[FRESH]


@pytest.mark.slow
def test_a_connection_whose_end_was_announced_fails_nothing() -> None:
    counts = answering(b"Connection: close\r\n").counts
    assert counts.failed.total() == counts.unannounced == 0
    assert counts.requests[KEPT] > CLIENTS[KEPT]
