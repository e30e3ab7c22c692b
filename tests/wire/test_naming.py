"""How a person knows an event."""

import pytest

from asgictl.wire.messages import Connect, Event, Job, Receive, Request, Scope, encode_scope
from asgictl.wire.naming import name_of

SCOPE = Scope("GET", "http", "1.1", "", "/a\nb", b"/a%0ab", b"", [], None, None)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (Request("i/1", 1, SCOPE, b""), "GET /a?b"),
        (Connect("i/1", 1, 1, encode_scope(SCOPE), b""), "websocket.connect /a?b"),
        (Receive("i/1", 1, 1, encode_scope(SCOPE), b"", ["x"], 0), "websocket.receive /a?b"),
        (Receive("i/1", 1, 1, b"nonsense", b"", ["x"], 0), "websocket.receive"),
        (Job("1", 1, "thumbs", b""), "background.thumbs"),
    ],
)
def test_an_event_is_named_on_one_line_by_what_it_asks_for(event: Event, name: str) -> None:
    assert name_of(event) == name
