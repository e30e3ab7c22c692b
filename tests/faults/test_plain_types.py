"""A25: what handlers say may be of a subclass and arrives as the plain type; what cannot travel is told where it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests import plain
from tests.conftest import MODES
from tests.faults.test_user_code import Site, closed_with, site_of
from tests.scenarios.test_demo import SECONDS, get

TYPES = (
    Path(plain.__file__).read_text()
    + """
import http

TEXTS = {"safe": Safe("hello"), "liar": Liar("hello"), "word": Word.HELLO, "old": Old.HELLO}
STATUS = {"made": http.HTTPStatus.CREATED, "hello": http.HTTPStatus.OK}
NUMBERS = {"number": Number(4000), "code": Code.OWN}
LONE = "lone \\udc80"
BAD = {"lone": LONE, "safe-lone": Safe(LONE), "none": None, "object": object(), "list": ["a"], "number": 5}
"""
)
CONSUMERS = (
    TYPES
    + """
from asgictl import Application, Channel, Group, path

def start(start_response, status="200 OK"):
    start_response(status, [("Content-Type", "text/plain")])

def view(environ, start_response):
    _, what, name = environ["PATH_INFO"].split("/")
    if what == "group":
        Group(TEXTS[name]).send(text=TEXTS[name])
    elif what == "now":
        Group(TEXTS[name]).send(text=TEXTS[name], immediately=True)
    elif what == "bytes":
        Group("hello").send(data=Bytes(b"hello"))
    elif what == "job":
        content = {TEXTS[name]: TEXTS[name], "list": [TEXTS[name], Bytes(b"b"), Number(7), Float(0.5), Code.OWN, True]}
        Channel(TEXTS["safe" if name == "old" else name]).send(content)
    elif what == "bad":
        Group("hello").send(text=BAD[name])
    elif what == "badname":
        Group(BAD[name]).send(text="x")
    elif what == "badjob":
        Channel("hello").send({"x": LONE if name == "lone" else object()})
    elif what == "badheader":
        start_response("200 OK", [("X-A", BAD[name])])
        return [b"never"]
    elif what == "headers":
        start_response(Safe("201 Created"), [(Safe("X-Safe"), Safe("hello")), ("X-Word", TEXTS[name])])
        return [Bytes(b"hel"), Bytes(b"lo")]
    start(start_response)
    return [b"done"]

def job(message):
    content = message.content
    kinds = [type(each).__name__ for each in [*content, *content.values(), *content["list"]]]
    Group("hello").send(text=" ".join(kinds))

def accepts(message):
    name = message.params["name"]
    message.join(TEXTS[name])
    message.state[TEXTS[name]] = [TEXTS[name], Bytes(b"b"), Number(7), Float(0.5), Code.OWN]
    message.accept(subprotocol=TEXTS[name], headers=[(Bytes(b"x-a"), Bytes(b"hello"))])

def receives(message):
    name = message.params["name"]
    if message.text == "text":
        message.reply(text=TEXTS[name])
    elif message.text == "now":
        message.reply(text=TEXTS[name], immediately=True)
    elif message.text == "data":
        message.reply(data=Bytes(b"hello"))
    elif message.text == "group":
        Group(TEXTS[name]).send(text=TEXTS[name])
    elif message.text == "state":
        message.reply(text=" ".join(type(each).__name__ for each in [*message.state, *message.state["hello"]]))
    elif message.text == "leave":
        message.leave(TEXTS[name])
        message.reply(text="left")
    else:
        message.close(NUMBERS[message.text], TEXTS[name])

async def async_receives(message):
    receives(message)

def accepts_badly(message):
    what, name = message.params["what"], message.params["name"]
    if what == "subprotocol":
        message.accept(subprotocol=BAD[name])
    elif what == "header":
        message.accept(headers=[(b"x-a", BAD[name])])
    message.accept()

def receives_badly(message):
    what, name = message.params["what"], message.params["name"]
    message.reply(text="never seen")
    if what == "text":
        message.reply(text=BAD[name])
    elif what == "data":
        message.reply(data=[bytearray(b"x"), memoryview(b"x"), "x"][int(name)])
    elif what == "now":
        message.reply(text=BAD[name], immediately=True)
    elif what == "join":
        message.join(BAD[name])
    elif what == "leave":
        message.leave(BAD[name])
    elif what == "group":
        Group("hello").send(text=BAD[name])
    elif what == "job":
        Channel("hello").send({"x": LONE if name == "lone" else object()})
    elif what == "state":
        message.state["x"] = LONE if name == "lone" else object()
    elif what == "reason":
        message.close(4000, BAD[name])
    elif what == "code":
        message.close({"none": None, "object": object(), "float": 4000.5, "number": 5, "true": True}[name])

async def async_receives_badly(message):
    receives_badly(message)

app = Application(
    http=view,
    websocket=[
        path("/sync/{name}", connect=accepts, receive=receives),
        path("/async/{name}", connect=accepts, receive=async_receives),
        path("/bad/sync/{what}/{name}", connect=accepts_badly, receive=receives_badly),
        path("/bad/async/{what}/{name}", connect=accepts_badly, receive=async_receives_badly),
    ],
    background={Safe("hello"): job},
)
"""
)
SOCKETS = (
    TYPES
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    _, what, name = scope["path"].split("/")
    text = TEXTS.get(name, "hello")
    if scope["type"] == "http":
        headers = [(Bytes(b"x-a"), Bytes(b"hello")), (b"x-b", bytearray(b"hello"))]
        await send({"type": "http.response.start", "status": STATUS[what], "headers": headers})
        await send({"type": "http.response.body", "body": Bytes(b"hel"), "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"lo")})
        return
    await receive()
    if what == "badly" and name == "accept":
        await send({"type": "websocket.accept", "subprotocol": LONE})
    await send({"type": "websocket.accept", "subprotocol": text, "headers": [(Bytes(b"x-a"), Bytes(b"hello"))]})
    while (message := await receive())["type"] == "websocket.receive":
        said = message["text"]
        if what == "badly" and name == "reason":
            await send({"type": "websocket.close", "code": 4000, "reason": LONE})
        elif what == "badly" and name == "code":
            await send({"type": "websocket.close", "code": 4000.5})
        elif what == "badly":
            await send({"type": "websocket.send", "text": BAD[name]})
        elif said == "text":
            await send({"type": "websocket.send", "text": text})
        elif said == "bytes":
            await send({"type": "websocket.send", "bytes": Bytes(b"hello")})
        elif said == "buffer":
            await send({"type": "websocket.send", "bytes": bytearray(b"hello")})
        else:
            await send({"type": "websocket.close", "code": NUMBERS[said], "reason": text})
"""
)
NAMES = ["safe", "liar", "word", "old"]
PLAIN = ["str", "bytes", "int", "float", "int"]


@pytest.fixture(scope="module", params=MODES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(CONSUMERS, request.param, tmp_path_factory.mktemp("consumers")) as made:
        yield made


@pytest.fixture(scope="module", params=MODES)
def sockets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(SOCKETS, request.param, tmp_path_factory.mktemp("sockets")) as made:
        yield made


def opened(url: str) -> ClientConnection:
    return connect(url, subprotocols=["hello"])  # type: ignore[list-item]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_consumer_says(site: Site, kind: str, name: str) -> None:
    with opened(f"{site.ws}/sync/safe") as neighbour, opened(f"{site.ws}/{kind}/{name}") as ws:
        assert ws.response
        assert (ws.subprotocol, ws.response.headers["x-a"]) == ("hello", "hello")
        for said, answer in {"text": "hello", "now": "hello", "data": b"hello", "group": "hello"}.items():
            ws.send(said)
            assert ws.recv(SECONDS) == answer
        assert neighbour.recv(SECONDS) == "hello"
        ws.send("state")
        assert str(ws.recv(SECONDS)).split() == ["str", *PLAIN]
        ws.send("leave")
        assert ws.recv(SECONDS) == "left"
        neighbour.send("group")
        assert neighbour.recv(SECONDS) == "hello"
        for number in ("number", "code"):
            with opened(f"{site.ws}/{kind}/{name}") as other:
                other.send(number)
                assert closed_with(other) == 4000
                assert other.protocol.close_rcvd
                assert other.protocol.close_rcvd.reason == "hello"
        ws.send("text")
        assert ws.recv(SECONDS) == "hello", "nothing of the group came meanwhile"
    site.serves()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_view_says(site: Site, name: str) -> None:
    with opened(f"{site.ws}/sync/word") as member:
        for path in ("group", "now"):
            assert get(f"{site.url}/{path}/{name}")[0] == 200
            assert member.recv(SECONDS) == "hello"
        assert get(f"{site.url}/bytes/{name}")[0] == 200
        assert member.recv(SECONDS) == b"hello"
        assert get(f"{site.url}/job/{name}")[0] == 200
        assert str(member.recv(SECONDS)).split() == ["str", "str", "str", "list", *PLAIN, "bool"]
    site.serves()


@pytest.mark.parametrize("name", NAMES)
def test_status_headers_and_body_of_a_view(site: Site, name: str) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{site.url}/headers/{name}", timeout=SECONDS) as response:
        assert (response.status, response.read()) == (201, b"hello")
        assert (response.headers["x-safe"], response.headers["x-word"]) == ("hello", "hello")


@pytest.mark.parametrize(
    "path", ["bad/lone", "bad/safe-lone", "bad/list", "badname/lone", "badname/none", "badjob/lone", "badjob/object"]
)
def test_what_a_view_cannot_send_is_500_once(site: Site, path: str) -> None:
    assert get(f"{site.url}/{path}")[0] == 500
    site.told(f"GET /{path} failed")
    assert get(f"{site.url}/badheader/lone")[0] == 500
    site.serves()


BAD = {
    "text": ["lone", "safe-lone", "none", "object", "list", "number"],
    "data": ["0", "1", "2"],
    "now": ["lone", "object"],
    "join": ["lone", "none", "object"],
    "leave": ["lone", "none"],
    "group": ["safe-lone", "object"],
    "job": ["lone", "object"],
    "state": ["lone", "object"],
    "reason": ["lone", "none", "object", "number"],
    "code": ["none", "object", "float", "number", "true"],
}


@pytest.mark.parametrize(("what", "name"), [(what, name) for what, names in BAD.items() for name in names])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_consumer_cannot_say_is_1011_once(site: Site, kind: str, what: str, name: str) -> None:
    with opened(f"{site.ws}/bad/{kind}/{what}/{name}") as ws:
        ws.send("x")
        assert closed_with(ws) == 1011
    site.told(f"websocket.receive /bad/{kind}/{what}/{name} failed")
    site.serves()


@pytest.mark.parametrize(
    ("what", "name"), [("subprotocol", "lone"), ("subprotocol", "object"), ("header", "lone"), ("header", "number")]
)
def test_what_a_connect_consumer_cannot_say_is_500_once(site: Site, what: str, name: str) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        opened(f"{site.ws}/bad/sync/{what}/{name}")
    site.told(f"websocket.connect /bad/sync/{what}/{name} failed")
    site.serves()


@pytest.mark.parametrize("name", NAMES)
def test_what_an_asgi_socket_says(sockets: Site, name: str) -> None:
    with opened(f"{sockets.ws}/well/{name}") as ws:
        assert ws.response
        assert (ws.subprotocol, ws.response.headers["x-a"]) == ("hello", "hello")
        for said, answer in {"text": "hello", "bytes": b"hello", "buffer": b"hello"}.items():
            ws.send(said)
            assert ws.recv(SECONDS) == answer
    for number in ("number", "code"):
        with opened(f"{sockets.ws}/well/{name}") as ws:
            ws.send(number)
            assert closed_with(ws) == 4000
            assert ws.protocol.close_rcvd
            assert ws.protocol.close_rcvd.reason == "hello"
    sockets.serves()


def test_what_an_asgi_view_says(sockets: Site) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{sockets.url}/made/y", timeout=SECONDS) as response:
        assert (response.status, response.read()) == (201, b"hello")
        assert (response.headers["x-a"], response.headers["x-b"]) == ("hello", "hello")


@pytest.mark.parametrize("name", ["lone", "safe-lone", "object", "list", "reason", "code"])
def test_what_an_asgi_socket_cannot_say_is_1011_once(sockets: Site, name: str) -> None:
    with opened(f"{sockets.ws}/badly/{name}") as ws:
        ws.send("x")
        assert closed_with(ws) == 1011
    sockets.told(f"WebSocket /badly/{name} failed")


def test_a_subprotocol_of_an_asgi_socket_that_cannot_be_said_is_500_once(sockets: Site) -> None:
    with pytest.raises(InvalidStatus, match="500"):
        opened(f"{sockets.ws}/badly/accept")
    sockets.told("WebSocket /badly/accept failed")
