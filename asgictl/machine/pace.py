"""So many a second: sockets that all close at once would bring all their clients back at once."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
STEP_SECONDS = 0.05


async def spread(queue: deque[T], act: Callable[[T], None], per_second: float, end: float) -> None:
    """Call `act` for each in the queue, so many a second, until the queue is empty.

    end: by the loop's time(); it goes faster where those that wait would not be through by then.
    """
    now = asyncio.get_running_loop().time
    credit = 0.0
    while queue:
        step = max(per_second, len(queue) / max(end - now(), STEP_SECONDS)) * STEP_SECONDS
        credit = min(credit + step, max(step, 1.0))
        while queue and credit >= 1:
            credit -= 1
            act(queue.popleft())
        await asyncio.sleep(STEP_SECONDS)
