"""The event loop that runs applications."""

import asyncio
import inspect
from traceback import walk_tb
from typing import Any

import uvloop

from asgictl.app.runtime import failures


class LastingLoop(uvloop.Loop):
    """uvloop's, which goes on after a task or callback of the application has raised SystemExit or KeyboardInterrupt.

    asyncio lets both through to whoever runs the loop. Here they are what any other exception is: whoever awaits the
    task gets it, and asyncio logs what nobody awaits. It costs nothing for each task: the loop is only run again.
    """

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done; what that one raises is raised."""
        main = asyncio.ensure_future(future, loop=self)
        while True:
            try:
                return super().run_until_complete(main)
            except (SystemExit, KeyboardInterrupt) as error:
                if not _has_a_task(error):
                    failures.exception("a callback of the event loop failed")
                if main.done():  # it has raised this itself, or uvloop went on to its end
                    return main.result()


def _has_a_task(error: BaseException) -> bool:
    """Whether an exception came out of a coroutine, so that a task keeps it."""
    return any(frame.f_code.co_flags & inspect.CO_COROUTINE for frame, _ in walk_tb(error.__traceback__))
