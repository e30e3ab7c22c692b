"""An ASGI application's lifespan, whatever it does with it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asgictl.errors import TargetError
from asgictl.lifespan import Lifespan
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
