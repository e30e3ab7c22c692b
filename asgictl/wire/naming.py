"""How a person knows an event, in logs and on a terminal."""

from asgictl.errors import WireError
from asgictl.wire.messages import Event, Request, Turn, decode_scope, printable


def name_of(event: Event) -> str:
    """Return an event's name: `GET /path`, `websocket.receive /path`, `background.name`."""
    if isinstance(event, Request):
        return printable(f"{event.scope.method} {event.scope.path}")
    if isinstance(event, Turn):
        try:
            return printable(f"{event.channel} {decode_scope(event.scope).path}")
        except WireError:  # somebody else's
            return event.channel
    return event.channel
