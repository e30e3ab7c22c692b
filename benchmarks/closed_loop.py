"""HTTP clients that keep their connection, and send the next request once the last is answered."""

import asyncio
import re
from collections.abc import Callable
from contextlib import closing
from time import perf_counter
from typing import NamedTuple


class Answer(NamedTuple):
    """seconds: from the request's first byte to the answer's last. retry_after: whether it says when to try again."""

    status: int
    retry_after: bool
    seconds: float


def get(path: str, *headers: str) -> bytes:
    """Return a GET as it is sent."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[Answer, bool]:
    """Send a request once. Return its answer, and whether the server keeps the connection.

    Raises OSError or EOFError when the server cuts it off.
    """
    began = perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    answer = Answer(int(head[9:12]), b"\r\nretry-after:" in head, perf_counter() - began)
    return answer, b"\r\nconnection: close" not in head


async def ask(port: int, path: str, seconds: float, heard: Callable[[Answer], None], pause_seconds: float = 0) -> None:
    """Be one client, for at least one answer. Raises OSError or EOFError when the server cuts it off."""
    request, until = get(path), perf_counter() + seconds
    while perf_counter() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        kept = True
        with closing(writer):
            while kept and not reader.at_eof() and perf_counter() < until:
                answer, kept = await exchange(reader, writer, request)
                heard(answer)
                await asyncio.sleep(pause_seconds)


async def times(port: int, path: str, seconds: float, clients: int = 1) -> list[float]:
    """Return how long each request took that `clients` sent. Raises RuntimeError unless all were answered 200."""
    answers: list[Answer] = []
    await asyncio.gather(*(ask(port, path, seconds, answers.append) for _ in range(clients)))
    if strange := {answer.status for answer in answers} - {200}:
        raise RuntimeError(f"{path} was answered {strange}")
    return [answer.seconds for answer in answers]
