"""An ASGI application's lifespan, in a worker or in the server's own process (ASGI, lifespan protocol 2.0)."""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from asgictl.app.boundary import UserCode
from asgictl.app.runtime import failures
from asgictl.errors import TargetError

logger = logging.getLogger("asgictl.lifespan")
STOP_SECONDS = 10.0  # that an application has to shut down
MAIN_THREAD = "main thread"  # is in what Python and uvloop say of signal handlers elsewhere
HANDLE_SIGNALS = (
    "\nIn split mode ASGI runs beside the main thread: set signal handlers in the module that TARGET names."
)


class Lifespan:
    """state: what the application has put there, of which each connection gets a copy."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self.state: dict[str, Any] = {}
        self.application = application
        self._messages: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._answer = asyncio.Event()  # to startup, then to shutdown
        self._heard = ""  # the last message's type
        self._reason = ""
        self._task: asyncio.Task[None] | None = None
        self._code = UserCode("lifespan failed", expected=BaseException)  # which is told below, by how far it came

    async def start(self) -> None:
        """Wait until the application has started; one that raises before it answers has no lifespan.

        Raises TargetError when it says that its startup failed.
        """
        self._task = asyncio.create_task(self._run())
        await self._ask("lifespan.startup")
        if self._heard == "lifespan.startup.failed":
            hint = HANDLE_SIGNALS if MAIN_THREAD in self._reason else ""
            raise TargetError(f"the application's lifespan failed: {self._reason}{hint}")

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until the application has shut down, or its deadline has passed."""
        if self._task and not self._task.done():
            try:
                async with asyncio.timeout(seconds):
                    await self._ask("lifespan.shutdown")
            except TimeoutError:
                logger.warning("the application's lifespan did not end within %.0f s", seconds)
            self._code.is_cancellable = True
            self._task.cancel()  # one that has answered may wait for more, for ever

    async def _ask(self, type: str) -> None:
        self._answer.clear()
        self._messages.put_nowait({"type": type})
        await self._answer.wait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            with self._code as ended:
                await self.application(scope, self._messages.get, self._send)
            if ended.error is not None and self._heard:
                failures.error("lifespan failed", exc_info=ended.error)
            elif ended.error is not None:
                logger.info("the application does not support lifespan: %r", ended.error)
        finally:
            self._answer.set()

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self._heard, self._reason = message["type"], message.get("message", "")
        self._answer.set()
