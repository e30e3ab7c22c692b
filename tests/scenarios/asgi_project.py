"""An ASGI application in which each path and socket does one thing that servers get wrong, and how it is looked at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path

from tests.conftest import Machine, new_machine, until
from tests.scenarios.test_demo import SECONDS, get
from tests.scenarios.test_http import Client

APPLICATION = '''
import asyncio, json, logging, os
from pathlib import Path
from urllib.parse import unquote

logging.basicConfig(level=logging.WARNING)
gate = {}  # name -> event, that another request sets
START, BODY = "http.response.start", "http.response.body"

def event(name):
    return gate.setdefault(name, asyncio.Event())

def note(name, said=""):
    Path(name + ".part").write_text(str(said))
    os.replace(name + ".part", name)

async def answer(send, body, status=200, headers=()):
    await send({"type": START, "status": status, "headers": list(headers)})
    await send({"type": BODY, "body": body})

async def body_of(receive):
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return "disconnect"
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    return size

async def app(scope, receive, send):
    kind = scope["type"]
    if kind == "lifespan":
        await receive()
        scope["state"]["shared"], scope["state"]["own"] = [], 0
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shut-down")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"].removeprefix(scope["root_path"])
    found = globals()[("http" if kind == "http" else "ws") + path.replace("/", "_").partition(".")[0]]
    await found(scope, receive, send, scope["query_string"].decode())

def seen(scope):
    shown = {key: value for key, value in scope.items() if key not in ("state", "extensions")}
    return json.dumps(shown, default=lambda value: value.decode("latin-1")).encode()

async def http_scope(scope, receive, send, query):
    await answer(send, seen(scope))

async def http_state(scope, receive, send, query):
    scope["state"]["shared"].append(1)
    scope["state"]["own"] += 1
    await answer(send, b"%d %d" % (len(scope["state"]["shared"]), scope["state"]["own"]))

async def http_headers(scope, receive, send, query):
    await answer(send, b"", headers=[(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3"), (b"x-c", b"\\xe4")])

async def http_head_first(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await event(query).wait()
    await send({"type": BODY, "body": b"body"})

async def http_pid(scope, receive, send, query):
    await answer(send, str(os.getpid()).encode())

async def ws_pid(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(os.getpid())})

async def http_wait_set(scope, receive, send, query):
    note("waits-" + query)
    while not Path("set-" + query).exists():
        await asyncio.sleep(0.02)
    await answer(send, b"news")

async def http_never(scope, receive, send, query):
    await asyncio.Event().wait()

ws_never = http_never

async def http_count(scope, receive, send, query):
    await answer(send, str(await body_of(receive)).encode())

async def http_refuse(scope, receive, send, query):
    await answer(send, b"no", 403)

async def http_whole(scope, receive, send, query):
    await answer(send, b"x" * int(query), headers=[(b"content-length", query.encode())])

async def http_parts(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    for number in range(int(query)):
        await send({"type": BODY, "body": b"%06d" % number, "more_body": True})
    await send({"type": BODY, "body": b""})

async def http_status(scope, receive, send, query):
    await send({"type": START, "status": int(query)})
    await send({"type": BODY})

async def http_events(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(3):
        await send({"type": BODY, "body": b"data: %d\\n\\n" % number, "more_body": True})
        await event(query + str(number)).wait()
    await send({"type": BODY, "body": b"data: end\\n\\n"})

async def http_set(scope, receive, send, query):
    event(query).set()
    await answer(send, b"set")

async def http_poll(scope, receive, send, query):
    note("polls-" + query)
    await event(query).wait()
    await answer(send, b"news")

async def http_body_left(scope, receive, send, query):
    note("heard-" + query, await body_of(receive))

async def http_wait_left(scope, receive, send, query):
    await body_of(receive)
    note("waits-" + query)
    note("heard-" + query, (await receive())["type"])

async def http_stream_left(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": b"tick", "more_body": True})
    await body_of(receive)
    note("heard-" + query, (await receive())["type"])
    try:
        await send({"type": BODY, "body": b"tick", "more_body": True})
        note("sent-" + query, "nothing")
    except OSError:
        note("sent-" + query, "OSError")

async def http_endless(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    number = 0
    while not event(query).is_set():
        await asyncio.sleep(0)
        await send({"type": BODY, "body": b"x" * 65536, "more_body": True})
        number += 1
        note("sent-" + query, number)

async def http_after(scope, receive, send, query):
    await answer(send, b"whole")
    first, second = await receive(), await receive()
    note("heard-" + query, first["type"] + " " + second["type"])

async def http_polled(scope, receive, send, query):
    """As frameworks do to see whether the client is there still."""
    await body_of(receive)
    for _ in range(20):
        task = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        task.cancel()
    await answer(send, b"polled")

async def http_late_error(scope, receive, send, query):
    await answer(send, b"whole", headers=[(b"content-length", b"5")])
    raise ValueError("late " + query)

async def http_raise(scope, receive, send, query):
    raise ValueError("raised " + query)

async def http_raise_begun(scope, receive, send, query):
    await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": b"begun", "more_body": True})
    await event("raise" + query).wait()
    raise ValueError("raised " + query)

async def http_garbage(scope, receive, send, query):
    await {
        "nothing": lambda: asyncio.sleep(0),
        "body-first": lambda: send({"type": BODY, "body": b"x"}),
        "unknown": lambda: send({"type": "http.response.what"}),
        "websocket": lambda: send({"type": "websocket.accept"}),
        "no-type": lambda: send({}),
        "no-dict": lambda: send(None),
        "status": lambda: answer(send, b"", 99),
        "status-text": lambda: answer(send, b"", "abc"),
        "header-text": lambda: answer(send, b"", 200, [("x-a", "b")]),
        "header-split": lambda: answer(send, b"", 200, [(b"x-a", b"b\\r\\nx-c: d")]),
        "header-name": lambda: answer(send, b"", 200, [(b"x a", b"b")]),
    }[query]()

async def http_garbage_begun(scope, receive, send, query):
    length = [(b"content-length", b"5")]
    await send({"type": START, "status": 200, "headers": [] if query == "twice" else length})
    await send({"type": BODY, "body": b"123", "more_body": True})
    if query == "twice":
        await send({"type": START, "status": 200, "headers": []})
    await send({"type": BODY, "body": {"short": b"", "long": b"4567"}[query]})

async def opened(receive, send, **accept):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", **accept})

async def ws_echo(scope, receive, send, query):
    await opened(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: v for k, v in message.items() if k != "type" and v is not None}})
    note("left-" + query, json.dumps([message["code"], message.get("reason") or ""]))

async def ws_scope(scope, receive, send, query):
    scope["state"]["own"] += 1
    await opened(receive, send)
    await send({"type": "websocket.send", "text": seen(scope).decode() + str(scope["state"]["own"])})
    await receive()

async def ws_choose(scope, receive, send, query):
    headers = [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")]
    await opened(receive, send, subprotocol=scope["subprotocols"][1], headers=headers)

async def ws_refuse(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.close", "code": 4000})

async def ws_deny(scope, receive, send, query):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
    await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"you"})

async def ws_close(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": "last"})
    code, _, reason = unquote(query).partition("-")
    await send({"type": "websocket.close", "code": int(code), "reason": reason})
    heard = await receive()
    note("closed-" + code, json.dumps([heard["type"], heard["code"]]))

async def ws_numbers(scope, receive, send, query):
    await opened(receive, send)
    for number in range(int(query)):
        await send({"type": "websocket.send", "text": str(number)})
    while (message := await receive())["type"] == "websocket.receive":
        pass

async def ws_deaf(scope, receive, send, query):
    await opened(receive, send)
    await send({"type": "websocket.send", "text": "open"})
    await event(query).wait()
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"][:8]})

async def ws_flood(scope, receive, send, query):
    await opened(receive, send)
    number = 0
    try:
        while True:
            await send({"type": "websocket.send", "text": f"{number:08}" + "x" * 65536})
            number += 1
            note("sent-" + query, number)
            await asyncio.sleep(0)  # else uvicorn never comes to see that its client has left
    except OSError:
        note("heard-" + query, "OSError")

async def ws_late_send(scope, receive, send, query):
    await opened(receive, send)
    first, second = await receive(), None
    try:
        await send({"type": "websocket.send", "text": "anybody?"})
    except OSError:
        second = "OSError"
    note("heard-" + query, f"{first['type']} {second}")

async def ws_wait(scope, receive, send, query):
    assert (await receive())["type"] == "websocket.connect"
    note("waits-" + query)
    note("heard-" + query, (await receive())["type"])

async def ws_raise(scope, receive, send, query):
    if query == "open":
        await opened(receive, send)
    raise ValueError("raised " + query)

async def ws_garbage(scope, receive, send, query):
    if query.startswith("open-"):
        await opened(receive, send)
    await {
        "nothing": lambda: asyncio.sleep(0),
        "send-first": lambda: send({"type": "websocket.send", "text": "x"}),
        "http": lambda: send({"type": START, "status": 200, "headers": []}),
        "header": lambda: send({"type": "websocket.accept", "headers": [(b"x-a", "text")]}),
        "open-twice": lambda: send({"type": "websocket.accept"}),
        "open-unknown": lambda: send({"type": "websocket.what"}),
        "open-number": lambda: send({"type": "websocket.send", "text": 5}),
        "open-surrogate": lambda: send({"type": "websocket.send", "text": "\\ud800"}),
        "open-code": lambda: send({"type": "websocket.close", "code": 999}),
        "open-reason": lambda: send({"type": "websocket.close", "code": 4000, "reason": "x" * 200}),
        "open-no-dict": lambda: send(None),
    }[query]()

class Two:
    """ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await app(self.scope, receive, send)

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"of WSGI"]

from asgictl import Application
mixed = Application(http=wsgi, websocket=app)

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cellar is flooded"})

async def without_lifespan(scope, receive, send):
    assert scope["type"] != "lifespan", "this is no lifespan application"
    await app({**scope, "state": {"shared": [], "own": 0}}, receive, send)
'''


@contextmanager
def asgi_site(mode: str, directory: Path) -> Iterator[Machine]:
    """Serve it below /below, on one worker; its lifespan has ended at the end."""
    with new_machine() as made:
        made.directory = directory
        made.mode = mode
        (directory / "asgi_app.py").write_text(APPLICATION)
        made.start("asgi_app:app", "--mode", mode, "--workers", "1", "--root-path", "/below")
        yield made
        made.stop()
        assert (directory / "shut-down").exists(), "its lifespan has ended"


def told(machine: Machine, name: str) -> str:
    """Wait for what the application has noted under a name."""
    assert machine.directory
    path = machine.directory / name
    until(path.exists, f"the application notes {name}", SECONDS)
    return path.read_text()


def log(machine: Machine) -> str:
    """What the process that runs the application has logged."""
    return machine.log("worker-00" if machine.mode == "split" else "server-00")


def lives(machine: Machine) -> None:
    assert get(machine.url + "/count", b"lives")[2] == b"5"


def response_of(raw: Client, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    """Read a whole response; raises OSError or HTTPException when it is cut off."""
    response = HTTPResponse(raw.socket, method=method)
    response.begin()
    return response, response.read()


def stands_still(machine: Machine, look: Callable[[], object]) -> None:
    """Wait until something has not changed while the application answered thirty other requests."""

    def stood() -> bool:
        before = look()
        for _ in range(30):
            lives(machine)
        return before == look()

    until(stood, "it stands still", SECONDS)
