"""What tests of a worker share: a layer whose other end is a client that a test writes."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from asgictl.layers.base import Answered, Entry
from asgictl.layers.redis.keys import Keys
from asgictl.wire.messages import (
    Broadcast,
    Credit,
    Reply,
    Request,
    Response,
    Scope,
    Want,
    WorkerMessage,
    decode_broadcast,
    decode_reply,
)
from asgictl.worker.sync_body import LayerFlow


def scope(method: str = "GET", **changed: Any) -> Scope:
    path = {"root_path": "", "path": "/a b", "raw_path": b"/a%20b", "query_string": b"q=1"}
    values: dict[str, Any] = {"scheme": "http", "http_version": "1.1", **path, "headers": [], "client": ("1.2.3.4", 5)}
    return Scope(method, **{**values, "server": ("h", 8000), **changed})


class Client:
    """Stands for the layer: answers each mail with the next letters of its script, then gives credit for every part.

    waited: the seconds for which letters were waited for.
    """

    inbox = "w.0"

    def __init__(self, *script: Sequence[WorkerMessage] | Exception) -> None:
        self.script = deque(script)
        self.sent: list[Want | Response] = []
        self.waited = 0.0
        self.is_there = True
        self._numbers = count(1)

    @property
    def parts(self) -> list[Response]:
        return [sent for sent in self.sent if isinstance(sent, Response)]

    @property
    def wanted(self) -> list[int]:
        return [sent.size for sent in self.sent if isinstance(sent, Want)]

    def mail(self, reply: Want | Response | None, wait_seconds: float = 0) -> tuple[bool, list[WorkerMessage]]:
        self.waited += wait_seconds
        if reply:
            self.sent.append(reply)
        if self.script:
            letters = self.script.popleft()
            if isinstance(letters, Exception):
                raise letters
            return self.is_there, list(letters)
        size = len(reply.body) if isinstance(reply, Response) else 0
        return self.is_there, [Credit("i/1", b"5-0", size, next(self._numbers))] if size else []


def flow_of(client: Client, event: Request, entry: bytes = b"5-0") -> LayerFlow:
    layer: Any = client
    return LayerFlow(Entry(b"ch", entry, event), event, layer, lambda: None)


class NoASGI:
    """Stands for the runs of an application that mounts nothing of ASGI."""

    def serves(self, entry: Entry) -> bool:
        return False


class Events:
    """Stands for the worker's event loop: keeps what goes to the interface, which is there or not.

    commits: what was committed ahead of broadcasts, decoded. answer: of commit.lua.
    """

    inbox = "w.asgi"

    def __init__(self) -> None:
        self.keys = Keys("test")
        self.sent: list[Reply] = []
        self.published: list[Broadcast] = []
        self.commits: list[Reply] = []
        self.is_there = True
        self.answer = 1
        self.on_message: Callable[[WorkerMessage], None] = lambda _letter: None
        self.on_forgotten: Callable[[], None] = lambda: None

    def reply(self, reply: Reply, answered: Answered) -> None:
        self.sent.append(reply)
        asyncio.get_running_loop().call_soon(answered, b"1-0" if self.is_there else None)

    def publish(self, broadcast: Broadcast) -> None:
        self.published.append(broadcast)

    send_now = publish

    async def commit(self, _commit: Any, arguments: Any) -> object:
        version, reply, *sent = arguments[arguments[0] + 6 :]
        self.commits.append(decode_reply(version, reply))
        self.published += [decode_broadcast(version, each) for each in sent[1::2]]
        await asyncio.sleep(0)
        return self.answer

    def start(self) -> None:
        """Runs already: it is the test's own."""

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.ensure_future(coroutine)


async def settled() -> None:
    """Let every task go as far as it can; no time needs to pass for that."""
    for _ in range(50):
        await asyncio.sleep(0)


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    run.__name__ = test.__name__
    return run
