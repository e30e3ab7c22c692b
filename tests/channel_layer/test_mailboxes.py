"""What of the mailboxes the contract of layers does not show: that nothing of them grows for ever, and threads."""

import asyncio
import threading

import pytest

from asgictl.channel_layer.mailboxes import Mailboxes
from tests.conftest import scenario, until


def made(expiry_seconds: float = 60, capacity: int = 3) -> Mailboxes:
    return Mailboxes(expiry_seconds, 86400, lambda _channel: capacity)


@scenario
async def test_channels_that_nobody_uses_any_more_are_forgotten() -> None:
    mailboxes = made()
    for number in range(10):
        task = asyncio.create_task(mailboxes.receive(f"c{number}"))
        mailboxes.join("g", f"c{number}")
        await asyncio.sleep(0)
        mailboxes.leave("g", f"c{number}")
        task.cancel()
        await asyncio.wait([task])
    assert (mailboxes._mailboxes, mailboxes._groups) == ({}, {})


@scenario
async def test_members_that_no_longer_receive_are_forgotten() -> None:
    mailboxes = made(expiry_seconds=0.05)
    mailboxes.join("g", "dead")
    mailboxes.deliver("g", b"1")
    mailboxes.put("dead", b"2", is_counted=True)
    assert mailboxes.counted() == {"dead": 1}
    await asyncio.sleep(0.1)
    mailboxes.put("other", b"3")
    assert list(mailboxes._mailboxes) == ["other"]
    assert mailboxes._groups == {}


@scenario
async def test_a_full_member_goes_without_and_that_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    mailboxes = made(capacity=1)
    for channel in ("slow", "quick"):
        mailboxes.join("g", channel)
    for data in (b"1", b"2"):
        mailboxes.deliver("g", data)
        assert (await mailboxes.receive("quick")).data == data
    assert mailboxes.shed.tell() == {"group messages dropped: their channels are full": 1}
    assert (await mailboxes.receive("slow")).data == b"1"


def test_a_receiver_on_another_thread_is_woken_and_one_that_has_gone_is_passed_over() -> None:
    mailboxes, heard = made(), []

    async def receive() -> None:
        heard.append((await mailboxes.receive("c")).data)

    gone = asyncio.new_event_loop()
    waiting = gone.create_task(receive())
    gone.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be left behind
    gone.close()
    thread = threading.Thread(target=lambda: asyncio.run(receive()))
    thread.start()
    until(lambda: len(mailboxes["c"].waiters) == 2, "both wait")
    mailboxes.put("c", b"1")
    thread.join(10)
    assert heard == [b"1"]


@scenario
async def test_who_joined_behind_a_message_does_not_get_it() -> None:
    mailboxes = made()
    mailboxes.join("g", "early", (5, 1))
    mailboxes.join("g", "late", (5, 2))
    mailboxes.join("g", "early", (9, 9))  # which renews, and takes nothing away
    mailboxes.deliver("g", b"1", (5, 2))
    assert [len(mailboxes[channel].messages) for channel in ("early", "late")] == [1, 0]
