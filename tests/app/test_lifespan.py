"""An ASGI application's lifespan, whatever it does with it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgictl.app.lifespan import Lifespan
from asgictl.app.loops import LastingLoop
from asgictl.errors import TargetError
from tests.worker.conftest import scenario, settled

Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


@scenario
async def test_it_starts_with_a_state_of_its_own_and_stops() -> None:
    said: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["pool"] = "made"
        for what in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{what}"}
            said.append(what)
            await send({"type": f"lifespan.{what}.complete"})

    lifespan = Lifespan(application)
    await lifespan.start()
    assert (lifespan.state, said) == ({"pool": "made"}, ["startup"])
    await lifespan.stop()
    assert said == ["startup", "shutdown"]
    await lifespan.stop()


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("only http")


async def raises_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit("only http")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Answers nothing."""


@pytest.mark.parametrize("application", [raises, raises_later, returns])
def test_an_application_that_answers_nothing_has_no_lifespan(application: Application) -> None:
    @scenario
    async def run() -> None:
        lifespan = Lifespan(application)
        await lifespan.start()
        await lifespan.stop()

    run()


@pytest.mark.parametrize("register", ["signal", "loop"])
def test_a_lifespan_that_handles_signals_beside_the_main_thread_is_told_where_to(register: str) -> None:
    async def application(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            if register == "signal":
                signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            else:
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, print)
        except (ValueError, RuntimeError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})

    def start() -> None:
        loop = LastingLoop()
        try:
            loop.run_until_complete(Lifespan(application).start())
        except TargetError as error:
            told.append(str(error))
        finally:
            loop.close()

    told: list[str] = []
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "set signal handlers in the module that TARGET names" in told[0]


class Raises:
    """Ends in its startup, before or after it has answered, or in its shutdown."""

    def __init__(self, where: str, how: type[BaseException]) -> None:
        self.where = where
        self.how = how

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if self.where == "startup":
            await self.end()
        await send({"type": "lifespan.startup.complete"})
        if self.where == "between":
            await self.end()
        await receive()
        await self.end()

    async def end(self) -> None:
        if self.how is KeyError:  # stands for its own cancellation
            task = asyncio.current_task()
            assert task
            task.cancel()
            await asyncio.sleep(9)
        raise self.how("theirs")


@pytest.mark.parametrize("where", ["startup", "between", "shutdown"])
@pytest.mark.parametrize("how", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, KeyError])
def test_a_lifespan_that_ends_ends_nothing_else_and_is_told_once(
    where: str, how: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    @scenario
    async def run() -> None:
        lifespan = Lifespan(Raises(where, how))
        await lifespan.start()
        await settled()
        await lifespan.stop()

    run()
    said = "the application does not support lifespan" if where == "startup" else "the application: lifespan failed"
    assert [record.getMessage()[: len(said)] for record in caplog.records] == [said]


@pytest.mark.parametrize("then_raises", [False, True])
def test_a_startup_that_failed_is_a_target_error_with_its_reason(then_raises: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})
        if then_raises:
            raise ValueError("wet")

    @scenario
    async def run() -> None:
        with pytest.raises(TargetError, match="the cellar is flooded"):
            await Lifespan(application).start()

    run()


def test_one_that_fails_while_it_serves_is_logged_and_needs_no_stop(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("in the background")

    @scenario
    async def run() -> None:
        lifespan = Lifespan(application)
        await lifespan.start()
        await settled()
        await lifespan.stop()

    run()
    assert [record.getMessage() for record in caplog.records] == ["the application: lifespan failed"]


def test_one_that_does_not_end_is_left_at_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    @scenario
    async def run() -> None:
        lifespan = Lifespan(application)
        await lifespan.start()
        await lifespan.stop(seconds=0)

    run()
    assert "did not end within" in caplog.text
