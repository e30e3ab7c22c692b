"""Turns of `async def` consumers, without Redis."""

import asyncio
import threading
from typing import Any

from asgictl.messages import Broadcast, Frames, encode
from asgictl.worker.async_turns import AsyncTurns


class Link:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int, tuple[object, ...]]] = []

    def call(self, *command: object, answered: object) -> None:
        self.calls.append((str(command[1]), threading.get_ident(), command))


def test_what_is_sent_immediately_goes_over_the_event_loop_whichever_thread_sends_it() -> None:
    turns = AsyncTurns("unix:///absent", "test")
    link: Any = Link()
    turns._link, turns._thread = link, threading.current_thread()

    async def scenario() -> None:
        turns._send_now(Broadcast("g", "of the loop"))
        assert len(link.calls) == 1, "at once, so that its commit cannot overtake it"
        await asyncio.to_thread(turns._send_now, Frames("i/1", ["of a thread"]))
        await asyncio.sleep(0)

    turns._loop.run_until_complete(scenario())
    turns._loop.run_until_complete(turns._loop.shutdown_default_executor())
    turns._loop.close()
    assert [(key, thread) for key, thread, _ in link.calls] == [
        ("asgictl:{test}:bc", threading.get_ident()),
        ("asgictl:{test}:re:i", threading.get_ident()),
    ]
    assert link.calls[1][2][-2:] == encode(Frames("i/1", ["of a thread"]))
