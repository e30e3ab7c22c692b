"""What tests of a worker share: a layer whose other end is a client that a test writes."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from asgictl.layers.base import Entry
from asgictl.messages import Credit, Letter, Request, Response, Scope, Want
from asgictl.worker.flow import LayerFlow


def scope(method: str = "GET", **changed: Any) -> Scope:
    path = {"root_path": "", "path": "/a b", "raw_path": b"/a%20b", "query_string": b"q=1"}
    values: dict[str, Any] = {"scheme": "http", "http_version": "1.1", **path, "headers": [], "client": ("1.2.3.4", 5)}
    return Scope(method, **{**values, "server": ("h", 8000), **changed})


class Client:
    """Stands for the layer: answers each mail with the next letters of its script, then gives credit for every part.

    waited: the seconds for which letters were waited for.
    """

    inbox = "w.0"

    def __init__(self, *script: Sequence[Letter] | Exception) -> None:
        self.script = deque(script)
        self.sent: list[Want | Response] = []
        self.waited = 0.0
        self.is_there = True

    @property
    def parts(self) -> list[Response]:
        return [sent for sent in self.sent if isinstance(sent, Response)]

    @property
    def wanted(self) -> list[int]:
        return [sent.size for sent in self.sent if isinstance(sent, Want)]

    def mail(self, reply: Want | Response | None, wait_seconds: float = 0) -> tuple[bool, list[Letter]]:
        self.waited += wait_seconds
        if reply:
            self.sent.append(reply)
        if self.script:
            letters = self.script.popleft()
            if isinstance(letters, Exception):
                raise letters
            return self.is_there, list(letters)
        size = len(reply.body) if isinstance(reply, Response) else 0
        return self.is_there, [Credit("i/1", b"5-0", size)] if size else []


def flow_of(client: Client, event: Request, entry: bytes = b"5-0") -> LayerFlow:
    layer: Any = client
    return LayerFlow(Entry(b"ch", entry, event), event, layer, lambda: None)


class NoASGI:
    """Stands for the runs of an application that mounts nothing of ASGI."""

    def serves(self, entry: Entry) -> bool:
        return False
