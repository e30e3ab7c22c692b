"""The messages of ASGI; what an application says is checked where it says it, so a mistake is its exception."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgictl.wire.messages import Headers, plain

ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_NO_VALUE = re.compile(rb"[\0-\x08\n-\x1f\x7f]")  # section 5.5


def bytes_of(value: Any) -> bytes:
    """Return the bytes of any buffer; of a subclass's too, whatever its own methods say. Raises TypeError."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def plain_message(message: ASGIMessage) -> ASGIMessage:
    """Return a WebSocket's message as its server has to get it, with nothing of a subclass. Raises TypeError."""
    if type(message.get("text")) is str or type(message.get("bytes")) is bytes:
        return message  # as nearly all are
    plain_values = {name: plain(value) for name, value in message.items()}
    if plain_values.get("bytes") is not None:
        plain_values["bytes"] = bytes_of(plain_values["bytes"])
    return plain_values


def headers_of(message: ASGIMessage) -> Headers:
    """Return the headers of an ASGI message; raises TypeError or ValueError for what are none."""
    headers = [(bytes_of(name).lower(), bytes_of(value)) for name, value in message.get("headers") or ()]
    for name, value in headers:
        if not _NAME.fullmatch(name) or _NO_VALUE.search(value):
            raise ValueError(f"{message['type']}: {name!r}: {value!r} is no header")
    return headers


def status_of(message: ASGIMessage, least: int = 100) -> int:
    """Return the status of a response's start; raises TypeError or ValueError for what is none."""
    status = message["status"]
    if not isinstance(status, int) or not least <= status < 600:
        raise ValueError(f"{message['type']}: {status!r} is no status from {least} to 599")
    return int(status)
