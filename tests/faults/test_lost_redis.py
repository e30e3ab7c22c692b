"""What Redis says that it should not, or does not say: nothing hangs, and one bad entry spoils itself alone."""

import asyncio
import time
from contextlib import closing, suppress

import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgictl.layers import RedisChannelLayer
from tests.conftest import Machine, scenario, until
from tests.faults.conftest import HANG_SECONDS, Serve, Site, exchange, kill, request, site_of, status_of

SLOW = """
    import time

    from asgictl import Application, path


    def site(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]


    def receive(message):
        time.sleep(0.3)
        message.reply(text=message.text)


    app = Application(http=site, websocket=[path("/ws", receive=receive)])
"""
site = site_of(SLOW, "--workers", "1")


def client_of(machine: Machine) -> "redis.Redis":
    return redis.Redis.from_url(f"unix://{machine.runtime}/asgictl/default/redis.sock")


BAD = {"position": ["1", b"\x90", "position", "abc"], "value": ["1", b"\xc1"], "version": ["77", b"\x90"]}


def rejections(machine: Machine) -> int:
    """Return how many things `status` counts as refused, dropped or passed over."""
    return sum(machine.status()["shed"].values())


def add_reply(machine: Machine, entry: str) -> None:
    """Put an entry onto the stream of replies to the interface."""
    with closing(client_of(machine)) as client:
        client.execute_command("XADD", next(client.scan_iter("*:re:*")), "*", *BAD[entry])


@pytest.mark.parametrize("entry", ["value", "version"])
def test_a_reply_that_is_none_is_passed_over(site: Site, entry: str) -> None:
    """A9."""
    add_reply(site("split"), entry)
    assert status_of(exchange(site("split"), request(b"/"), HANG_SECONDS)) == 200


def test_a_reply_with_a_position_that_is_none_is_passed_over(serve: Serve) -> None:
    """A9."""
    machine = serve(SLOW, "--workers", "1")
    add_reply(machine, "position")
    served = status_of(exchange(machine, request(b"/"), HANG_SECONDS)) == 200
    if not served:
        kill(machine)
    assert served


def test_replies_that_are_none_are_counted(site: Site) -> None:
    """A9."""
    machine = site("split")
    before = rejections(machine)
    add_reply(machine, "value")
    until(lambda: rejections(machine) > before, "it is counted")


def refuse(client: "redis.Redis", seconds: float) -> None:
    """Refuse commits for so long."""
    client.execute_command("ACL", "SETUSER", "default", "-xack", "-xadd")
    time.sleep(seconds)
    client.execute_command("ACL", "SETUSER", "default", "+xack", "+xadd")


@pytest.mark.soak
def test_a_refused_commit_ends_its_turn(serve: Serve) -> None:
    """A8: it runs again, or its socket is closed with 1011."""
    machine = serve(SLOW, "--workers", "1")
    with closing(client_of(machine)) as admin, connect(machine.ws + "/ws", close_timeout=0.2) as client:
        client.send("first")
        assert client.recv(60) == "first"
        client.send("second")
        time.sleep(0.1)  # its handler runs
        refuse(admin, 2)
        try:
            said: object = client.recv(60)
        except ConnectionClosed as closed:
            said = closed.rcvd and closed.rcvd.code
        except TimeoutError:
            said = "nothing"
        if said == "nothing":
            kill(machine)
    assert said in {"second", 1011}


@scenario
async def test_one_expired_message_of_the_channel_layer_is_lost_alone(url_of_valkey: str) -> None:
    """A15; channels_redis delivers the five that come after it."""
    layer, other = (RedisChannelLayer([url_of_valkey], "expired", expiry=1) for _ in range(2))
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    await other.group_send("group", {"type": "x", "number": 0})
    await asyncio.sleep(1.6)
    came: list[int] = []
    for number in range(1, 6):
        await other.group_send("group", {"type": "x", "number": number})
    with suppress(TimeoutError):
        async with asyncio.timeout(HANG_SECONDS):
            while len(came) < 5:
                came.append((await layer.receive(channel))["number"])
    assert came == [1, 2, 3, 4, 5]
