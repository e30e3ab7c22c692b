"""The event loop that goes on."""

import asyncio
from collections.abc import Iterator

import pytest

from asgictl.app.loops import LastingLoop

ENDS = [SystemExit, KeyboardInterrupt]


@pytest.fixture
def loop() -> Iterator[LastingLoop]:
    made = LastingLoop()
    yield made
    made.close()


async def raises(how: type[BaseException]) -> None:
    raise how("theirs")


@pytest.mark.parametrize("how", ENDS)
def test_it_goes_on_and_asyncio_tells_what_nobody_awaits(
    loop: LastingLoop, how: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[int]:
        for _ in range(3):
            loop.create_task(raises(how))
        return await asyncio.gather(*(asyncio.sleep(0.001, number) for number in range(9)))

    assert loop.run_until_complete(main()) == list(range(9))
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == [
        "Task exception was never retrieved"
    ] * 3


@pytest.mark.parametrize("how", ENDS)
def test_who_awaits_a_task_gets_what_it_raised(
    loop: LastingLoop, how: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        with pytest.raises(how, match="theirs"):
            await loop.create_task(raises(how))
        return "goes on"

    assert loop.run_until_complete(main()) == "goes on"
    assert caplog.records == []


@pytest.mark.parametrize("how", ENDS)
def test_a_callback_is_told_once(loop: LastingLoop, how: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    def callback() -> None:
        raise how("theirs")

    async def main() -> str:
        loop.call_soon(callback)
        return await asyncio.sleep(0.001, "goes on")

    assert loop.run_until_complete(main()) == "goes on"
    assert [record.getMessage() for record in caplog.records] == [
        "the application: a callback of the event loop failed"
    ]


@pytest.mark.parametrize("how", ENDS)
def test_what_is_run_itself_may_end_it(loop: LastingLoop, how: type[BaseException]) -> None:
    with pytest.raises(how, match="theirs"):
        loop.run_until_complete(raises(how))
