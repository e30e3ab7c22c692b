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
async def test_too_many_members_that_no_longer_receive_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those go that are unread for longest; one who waits, or has received since, is no such member."""
    monkeypatch.setattr("asgictl.channel_layer.mailboxes.ABANDONED_CHANNELS", 2)
    mailboxes = made(expiry_seconds=0.05)

    async def receive() -> None:
        while True:
            await mailboxes.receive("waits")

    async def expire() -> None:
        await asyncio.sleep(0.1)
        mailboxes.put("other", b"1")

    waiting = asyncio.create_task(receive())
    for channel in ("waits", "back"):
        mailboxes.join("g", channel)
    mailboxes.deliver("g", b"1")
    mailboxes.put("back", b"1", is_counted=True)
    assert mailboxes.counted() == {"back": 1}
    await expire()
    for number in range(4):
        mailboxes.join("g", f"dead{number}")
        mailboxes.deliver("g", b"2")
        assert (await mailboxes.receive("back")).data == b"2"
        await expire()
    assert {mailbox.channel for mailbox in mailboxes._groups["g"]} == {"waits", "back", "dead2", "dead3"}
    assert set(mailboxes._mailboxes) == {"waits", "back", "dead2", "dead3", "other"}
    assert mailboxes.counted() == {}
    assert mailboxes.freed() == ["back"]
    assert (mailboxes.freed(), mailboxes._counting) == ([], set())
    assert mailboxes.rejections.snapshot() == {"channels removed from groups: nobody receives": 2}
    waiting.cancel()
    await asyncio.wait([waiting])


def test_memberships_that_have_ended_are_forgotten_without_any_message() -> None:
    mailboxes = Mailboxes(0.01, 0.2, lambda _channel: 1)

    def count() -> int:
        mailboxes.join("other", "now")
        return len(mailboxes._mailboxes)

    for number in range(10):
        mailboxes.join(f"g{number}", f"c{number}")
    assert count() == 11
    until(lambda: count() == 1, "their memberships have ended")
    assert list(mailboxes._groups) == ["other"]


@scenario
async def test_who_joins_again_after_its_membership_has_ended_gets_nothing_of_the_time_between() -> None:
    mailboxes = Mailboxes(60, 0.05, lambda _channel: 3)
    mailboxes.join("g", "c", (1, 0))
    await asyncio.sleep(0.1)
    mailboxes.join("g", "c", (5, 0))
    mailboxes.deliver("g", b"between", (4, 0))
    mailboxes.deliver("g", b"new", (6, 0))
    assert [message.data for message in mailboxes["c"].messages] == [b"new"]


@scenario
async def test_a_full_member_goes_without_and_that_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    mailboxes = made(capacity=1)
    for channel in ("slow", "quick"):
        mailboxes.join("g", channel)
    for data in (b"1", b"2"):
        mailboxes.deliver("g", data)
        assert (await mailboxes.receive("quick")).data == data
    assert mailboxes.rejections.snapshot() == {"group messages dropped: channel full": 1}
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
    thread.join(60)
    assert heard == [b"1"]


@scenario
async def test_who_joined_behind_a_message_does_not_get_it() -> None:
    mailboxes = made()
    mailboxes.join("g", "early", (5, 1))
    mailboxes.join("g", "late", (5, 2))
    mailboxes.join("g", "early", (9, 9))  # which renews, and takes nothing away
    mailboxes.deliver("g", b"1", (5, 2))
    assert [len(mailboxes[channel].messages) for channel in ("early", "late")] == [1, 0]
