"""C16: of a turn's joins and leaves of one group the last counts, and who stays a member misses nothing."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MODES
from tests.faults.test_user_code import Site, site_of
from tests.scenarios.test_demo import SECONDS, get

SOURCE = """
from asgictl import Application, Group, channels1, path

def view(environ, start_response):
    Group(environ["PATH_INFO"].rpartition("/")[2]).send(text="heard")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]

def act(message, words):
    for word in words.split(","):
        kind, _, group = word.partition(":")
        if kind == "join":
            message.join(group)
        elif kind == "leave":
            message.leave(group)
        elif kind == "add":
            channels1.Group(group).add(reply(message))
        elif kind == "discard":
            channels1.Group(group).discard(reply(message))

def reply(message):
    return channels1.REPLY + message.id.rpartition(":")[0]

def connects(message):
    act(message, message.query_string.decode())
    message.accept()

def receives(message):
    act(message, message.text)
    message.reply(text="done")

async def async_connects(message):
    connects(message)

async def async_receives(message):
    receives(message)

def in_channels1(consumer):
    def run(message):
        turn = channels1._Turn(message, "websocket.receive", reply(message), ())
        token = channels1._turn.set(turn)
        try:
            consumer(message)
        finally:
            channels1._turn.reset(token)
    return run

app = Application(
    http=view,
    websocket=[
        path("/sync", connect=connects, receive=receives),
        path("/async", connect=async_connects, receive=async_receives),
        path("/channels1", connect=in_channels1(connects), receive=in_channels1(receives)),
    ],
)
"""
ORDERS = {
    "join:g": True,
    "join:g,leave:g": False,
    "leave:g,join:g": True,
    "join:g,leave:g,join:g": True,
    "leave:g,join:g,leave:g": False,
    "join:g,join:g,leave:g": False,
    "leave:g,leave:h,join:h,join:g": True,
    "join:h,join:g,leave:h": True,
}


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(SOURCE, request.param, tmp_path_factory.mktemp("memberships")) as made:
        yield made


def is_member(site: Site, ws: ClientConnection, group: str) -> bool:
    """Whether a socket hears what is sent to a group before its next answer."""
    with connect(f"{site.ws}/sync?join:{group}") as other:
        assert get(f"{site.url}/{group}")[0] == 200
        assert other.recv(SECONDS) == "heard"
        ws.send("")
        if (heard := ws.recv(SECONDS)) == "heard":
            assert ws.recv(SECONDS) == "done"
    return heard == "heard"


def spelled(kind: str, order: str, group: str) -> str:
    words = order.replace(":g", f":{group}").replace(":h", f":{group}.h")
    return words.replace("join", "add").replace("leave", "discard") if kind == "channels1" else words


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["sync", "async", "channels1"])
def test_the_last_call_counts(site: Site, kind: str, order: str, request: pytest.FixtureRequest) -> None:
    """In `connect`, in `receive` of a stranger, and in `receive` of a member."""
    group = f"{kind}.{list(ORDERS).index(order)}"
    words = spelled(kind, order, group)
    with connect(f"{site.ws}/{kind}?{words}") as ws:
        assert is_member(site, ws, group) is ORDERS[order]
    joined = "add" if kind == "channels1" else "join"
    for before in ("", f"{joined}:{group}"):
        with connect(f"{site.ws}/{kind}?{before}") as ws:
            ws.send(words)
            assert ws.recv(SECONDS) == "done"
            assert is_member(site, ws, group) is ORDERS[order]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_member_that_leaves_and_joins_again_misses_nothing(site: Site, kind: str) -> None:
    group = f"{kind}.stays"
    with connect(f"{site.ws}/{kind}?join:{group}") as ws:
        for _ in range(100):
            ws.send(f"leave:{group},join:{group}")
            get(f"{site.url}/{group}")
        heard = [ws.recv(SECONDS) for _ in range(200)]
    assert heard.count("heard") == heard.count("done") == 100


def test_the_last_call_counts_when_its_commit_is_sent_again(site: Site) -> None:
    """Every connection to Redis is cut meanwhile."""
    if site.mode == "inprocess":
        pytest.skip("no commit goes by Redis")
    with (
        redis.Redis.from_url(f"unix://{site.machine.runtime}/asgictl/default/redis.sock") as client,
        connect(f"{site.ws}/sync?join:cut") as ws,
    ):
        for number in range(20):
            ws.send("leave:cut,join:cut" if number % 2 else "join:cut,leave:cut")
            with suppress(redis.RedisError):
                client.client_kill_filter(_type="normal", skipme=True)
        assert [ws.recv(SECONDS) for _ in range(20)] == ["done"] * 20
        assert is_member(site, ws, "cut")
        ws.send("join:cut,leave:cut")
        assert ws.recv(SECONDS) == "done"
        assert not is_member(site, ws, "cut")
