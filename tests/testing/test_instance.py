"""Consumers and background jobs in a test's memory, of both kinds of instance."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from asgictl import Application, BackgroundMessage, Channel, Group, Message, RetryLater, path
from asgictl.errors import NotRunning, RedisError, TargetError, UnknownChannel
from asgictl.testing import AsyncInstance, DeadLetter, Instance, Refused, Socket

ran: list[tuple[str, object, int]] = []  # by each handler: its name, what it got, the attempt
threads: set[int] = set()


def connect(message: Message) -> None:
    if message.query_string == b"refuse":
        message.close()
    elif message.query_string == b"raise":
        raise ValueError("in connect")
    else:
        message.accept(
            message.subprotocols[0] if message.subprotocols else None, [(b"x-host", message.headers["host"].encode())]
        )
        message.join("room")
        message.state["name"] = message.params["name"]


def receive(message: Message) -> None:
    threads.add(threading.get_ident())
    ran.append(("receive", message.text if message.data is None else message.data, message.attempt))
    if message.text == "raise":
        raise ValueError("in receive")
    if message.text == "close":
        message.close(4000, "enough")
    if message.text == "now":
        message.reply(text="at once", immediately=True)
    if message.text == "work":
        Channel("work").send({"for": message.state["name"]})
    if message.text == "say":
        Group("room").send(text=message.state["name"])
    message.reply(text=f"{message.state['name']} {message.text}") if message.data is None else message.reply(
        data=message.data
    )


def disconnect(message: Message) -> None:
    ran.append(("disconnect", message.code, message.attempt))
    Group("room").send(text=f"{message.state['name']} left")


async def aconnect(message: Message) -> None:
    await asyncio.sleep(0)
    connect(message)


async def areceive(message: Message) -> None:
    await asyncio.sleep(0)
    receive(message)


async def adisconnect(message: Message) -> None:
    await asyncio.sleep(0)
    disconnect(message)


def work(message: BackgroundMessage) -> None:
    ran.append(("work", message.content, message.attempt))
    if message.content.get("later") and message.attempt == 1:
        raise RetryLater(60)
    if message.content.get("raise"):
        raise ValueError("in work")
    if message.content.get("again"):
        Channel("awork").send(message.content)
    Group("room").send(text="worked")


async def awork(message: BackgroundMessage) -> None:
    await asyncio.sleep(0)
    ran.append(("awork", message.content, message.attempt))
    if message.content.get("again"):
        Channel("work").send(message.content)


APPLICATION = Application(
    websocket=[
        path("/sync/{name}", connect=connect, receive=receive, disconnect=disconnect),
        path("/async/{name}", connect=aconnect, receive=areceive, disconnect=adisconnect, pool="slow"),
        path("/once/{name}", connect=connect, receive=receive, disconnect=disconnect, at_most_once=True),
    ],
    background={"work": work, "awork": awork},
)
Step = Callable[[Any], Awaitable[None]]
KINDS = ("sync", "async")


@pytest.fixture(autouse=True)
def _empty() -> None:
    ran.clear()
    threads.clear()


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance(APPLICATION) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_is_accepted_answered_and_closed(instance: Instance, kind: str) -> None:
    ann = instance.connect(f"/{kind}/ann", subprotocols=["chat", "v2"], headers={"Host": "example.com"})
    assert (ann.subprotocol, ann.headers) == ("chat", [(b"x-host", b"example.com")])
    ann.send("hello")
    ann.send(b"\0")
    assert (ann.receive(), ann.receive(), ann.frames, ann.close_code) == ("ann hello", b"\0", [], None)
    ann.close(1001)
    assert ran[-1] == ("disconnect", 1001, 1)
    assert threads == {threading.get_ident()}
    with pytest.raises(AssertionError, match="was closed"):
        ann.send("too late")


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_hears_what_handlers_and_the_test_send(instance: Instance, kind: str) -> None:
    ann, bob = instance.connect(f"/{kind}/ann"), instance.connect("/sync/bob")
    ann.send("say")
    assert (ann.frames, bob.frames) == (["ann say", "ann"], ["ann"])
    Group("room").send(text="from a view")
    instance.run()
    assert bob.frames == ["ann", "from a view"]
    ann.close()
    assert bob.frames[2:] == ["ann left"]


@pytest.mark.parametrize(("query", "status"), [("refuse", 403), ("raise", 500)])
def test_a_handshake_that_is_refused_raises(instance: Instance, query: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        instance.connect(f"/sync/ann?{query}")
    assert refused.value.status == status
    with pytest.raises(Refused, match="404"):
        instance.connect("/nowhere")
    with pytest.raises(Refused, match="403"):
        instance.connect("/sync/ann", headers={"Origin": "https://evil.example"})


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_raises_ends_its_socket_and_can_be_looked_at(instance: Instance, kind: str) -> None:
    ann = instance.connect(f"/{kind}/ann")
    ann.send("raise")
    assert ann.close_code == 1011
    assert [str(error) for error in instance.errors] == ["in receive"]
    with pytest.raises(AssertionError, match=r"no frame has come: the WebSocket /.*/ann was closed with 1011"):
        ann.receive()


def test_the_application_closes_a_socket(instance: Instance) -> None:
    ann = instance.connect("/sync/ann")
    ann.send("close")
    assert (ann.receive(), ann.close_code, ann.close_reason) == ("ann close", 4000, "enough")
    assert ran[-1] == ("disconnect", 4000, 1)


def test_a_frame_is_text_or_bytes(instance: Instance) -> None:
    wrong: Any = {"json": 1}
    with pytest.raises(TypeError, match="a frame is a str or bytes"):
        instance.connect("/sync/ann").send(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_dies_at_its_commit_takes_what_was_sent_and_the_event_runs_again(
    instance: Instance, kind: str
) -> None:
    ann = instance.connect(f"/{kind}/ann")
    instance.kill_worker()
    ann.send("now")
    assert ran == [("receive", "now", 1), ("receive", "now", 2)]
    assert ann.frames == ["at once", "at once", "ann now"]
    assert ann.close_code is None


def test_an_event_of_which_three_workers_died_is_given_up(instance: Instance) -> None:
    ann = instance.connect("/sync/ann")
    instance.kill_worker(3)
    ann.send("deadly")
    assert (ann.close_code, [attempt for _, _, attempt in ran[:3]]) == (1011, [1, 2, 3])
    assert [letter.channel for letter in instance.dead_letters] == ["websocket.receive"]


def test_a_frame_of_an_at_most_once_path_is_not_run_again(instance: Instance) -> None:
    ann = instance.connect("/once/ann")
    instance.kill_worker()
    ann.send("once")
    ann.send("next")
    assert ran == [("receive", "once", 1), ("receive", "next", 1)]
    assert ann.frames == ["ann next"]
    assert instance.dead_letters[0].channel == "websocket.receive"


@pytest.mark.parametrize("channel", ["work", "awork"])
def test_a_background_message_runs_when_the_test_or_a_handler_sends_it(instance: Instance, channel: str) -> None:
    Channel(channel).send({"a": 1})
    assert ran == []
    instance.run()
    assert ran == [(channel, {"a": 1}, 1)]
    with pytest.raises(UnknownChannel):
        Channel("nobody").send({})


def test_a_handlers_message_runs_with_its_frame(instance: Instance) -> None:
    ann = instance.connect("/sync/ann")
    ann.send("work")
    assert ran == [("receive", "work", 1), ("work", {"for": "ann"}, 1)]
    assert ann.frames == ["ann work", "worked"]


def test_a_delayed_message_waits_for_its_time(instance: Instance) -> None:
    Channel("work").send({"later": True}, delay_seconds=10)
    instance.advance(9.9)
    assert ran == []
    instance.advance(0.2)
    instance.advance(59)
    assert ran == [("work", {"later": True}, 1)]  # and it has asked to be run later
    instance.advance(2)
    assert ran[1:] == [("work", {"later": True}, 2)]
    assert instance.errors == []


def test_a_background_message_whose_workers_die_becomes_a_dead_letter(instance: Instance) -> None:
    instance.kill_worker()
    Channel("work").send({"a": 1})
    instance.run()
    assert ran == [("work", {"a": 1}, 1), ("work", {"a": 1}, 2)]
    instance.kill_worker(3)
    Channel("work").send({"a": 2})
    instance.run()
    assert instance.dead_letters == [DeadLetter("background.work", "3 workers died of it")]


def test_a_background_consumer_that_raises_ends_its_message(instance: Instance) -> None:
    Channel("work").send({"raise": True})
    instance.run()
    assert [type(error) for error in instance.errors] == [ValueError]
    assert ran == [("work", {"raise": True}, 1)]


def test_while_the_layer_is_lost_events_wait_and_sends_are_refused(instance: Instance) -> None:
    ann = instance.connect("/sync/ann")
    instance.lose_layer()
    for text in ("one", "two"):
        ann.send(text)
    with pytest.raises(RedisError):
        Group("room").send(text="from a view")
    with pytest.raises(AssertionError, match="the layer is lost"):
        instance.connect("/sync/bob")
    assert (ran, ann.frames) == ([], [])
    instance.restore_layer()
    assert ann.frames == ["ann one", "ann two"]


def test_a_layer_that_has_forgotten_everything_loses_no_frame_but_background_messages(instance: Instance) -> None:
    ann = instance.connect("/sync/ann")
    Channel("work").send({}, delay_seconds=1)
    instance.lose_layer()
    ann.send("one")
    instance.restore_layer(is_empty=True)
    instance.advance(2)
    ann.send("say")
    assert ann.frames == ["ann one", "ann say", "ann"]
    assert ran == [("receive", "one", 1), ("receive", "say", 1)]


def test_events_that_follow_each_other_without_end_are_an_error() -> None:
    with Instance(APPLICATION) as instance:
        Channel("work").send({"again": True})
        with pytest.raises(AssertionError, match="without end"):
            instance.run()


def test_an_instance_ends_with_its_disconnects_and_what_is_sent_goes_to_redis_again(
    real_sends: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Instance(APPLICATION) as instance:
        instance.connect("/sync/ann")
        instance.lose_layer()
    assert ran == [("disconnect", 1001, 1)]
    monkeypatch.setenv("ASGICTL_NAME", "nowhere")
    with pytest.raises((RedisError, NotRunning)):
        Channel("work").send({})


def test_a_test_that_fails_ends_its_instance_too() -> None:
    def fails() -> None:
        with Instance(APPLICATION) as instance:
            instance.connect("/sync/ann")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert ran == [("disconnect", 1001, 1)]


def test_a_target_is_loaded() -> None:
    with Instance("asgictl.demo:app") as instance:
        assert instance.application.routes


def test_jobs_run_beside_an_asgi_application_whose_sockets_are_not_the_tests() -> None:
    with Instance(Application(websocket=areceive, background={"awork": awork})) as instance:
        with pytest.raises(TargetError, match="its framework's client"):
            instance.connect("/ws")
        Channel("awork").send({})
        instance.run()
    assert ran == [("awork", {}, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_async_test_awaits_what_a_sync_one_does_at_once(kind: str) -> None:
    async def scenario() -> None:
        async with AsyncInstance(APPLICATION) as instance:
            ann: Socket[Awaitable[None]] = await instance.connect(f"/{kind}/ann")
            instance.kill_worker()
            await ann.send("say")
            assert ann.frames == ["ann say", "ann"]
            Channel("work").send({"later": True})
            await instance.run()
            await instance.advance(61)
            instance.lose_layer()
            await ann.send("waits")
            await instance.restore_layer(is_empty=True)
            assert ann.frames[2:] == ["worked", "ann waits"]
            with pytest.raises(Refused):
                await instance.connect("/nowhere")
            await ann.close()

    asyncio.run(scenario())
    assert [attempt for name, what, attempt in ran if what == "say"] == [1, 2]
    assert ran[-1] == ("disconnect", 1000, 1)
