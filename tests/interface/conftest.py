"""What tests of an interface share."""

import asyncio


async def settled() -> None:
    """Let every task go as far as it can; no time needs to pass for that."""
    for _ in range(50):
        await asyncio.sleep(0)
