"""What must hold for whatever a client sends to the edge.

Nothing is raised. Each request is answered, or its connection closed; responses are well framed, as h11 reads them, and
frames as RFC 6455 has them. Bytes that are cut differently are the same requests, messages and answers. What waits in
memory is bounded. A socket's messages and its close code are those that websockets finds.
"""

from collections.abc import Iterator, Sequence

import h11
from websockets.frames import Frame as ReferenceFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from asgictl.interface.framing import CONTINUE, header_of
from asgictl.wire.messages import Frame
from fuzz.server import MESSAGE_BYTES, Request, Server, Socket, seen

TIMED = (b"early",)  # paths whose requests end by what has come until then
SAME_BYTES = 32 << 10  # up to which an input is one slice: limits are looked at between two
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def check(data: bytes, places: Sequence[int] = (), *, half_closes: bool = True, is_slow: bool = False) -> None:
    """Send an input whole and cut at these places; raises AssertionError, or whatever the edge raises."""
    whole, cut = Server(), Server(is_slow)
    whole.feed([data])
    cut.feed(list(pieces(data, places)))
    for each in (whole, cut):
        check_answers(each)
    if not (is_slow or len(data) > SAME_BYTES or any(path in data for path in TIMED)):
        assert _final(cut) == _final(whole)
        assert seen(cut.backend) == seen(whole.backend)
    whole.end(half_closes)
    cut.end(half_closes)
    for each in (whole, cut):
        check_answers(each)


def _final(server: Server) -> bytes:
    """Return what was written, without the answers between: whether they are sent depends on what has come."""
    return bytes(server.transport.out).replace(CONTINUE, b"")


def pieces(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """Cut an input."""
    begin = 0
    for place in sorted({place for place in places if 0 < place < len(data)}):
        yield data[begin:place]
        begin = place
    yield data[begin:]


def check_answers(server: Server) -> None:
    """Assert that what was written is well framed, and what the application said."""
    calls, rest = list(server.backend.calls), bytes(server.transport.out)
    is_over = server.transport.has_ended or server.transport.is_closing()
    while rest:
        call = calls.pop(0) if calls else None
        if isinstance(call, Socket):
            head, _, frames = rest.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 101 "):
                check_frames(frames, call)
                return
        rest = _check_response(server, call, rest, is_over)


def _check_response(server: Server, call: Request | Socket | None, data: bytes, is_over: bool) -> bytes:
    """Check the response at the begin; return what is behind it."""
    method = call.scope.method if isinstance(call, Request) else "GET"
    status, body, rest, is_whole, closes = response(data, method, is_over)
    if not is_whole and call is None:  # a refusal of a HEAD, of which only the edge knows
        status, body, rest, is_whole, closes = response(data, "HEAD", is_over)
    is_cut = server.transport.is_aborted or (isinstance(call, Request) and (call.is_aborted or call.is_gone))
    assert is_whole or is_cut, data
    assert not (closes and rest), "an answer behind the last"
    if isinstance(call, Request) and call.answered and is_whole and status == call.answered[0]:
        assert body == (b"" if method == "HEAD" else call.answered[1])
    elif call is None or not isinstance(call, Request):
        assert 400 <= status < 600, status
        assert closes, "a connection is kept behind what was not understood"
    return rest


def response(data: bytes, method: str, is_over: bool) -> tuple[int, bytes, bytes, bool, bool]:
    """Return status, body, what is behind the response, whether it is whole, and whether it says to be the last."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if is_over:
        client.receive_data(b"")
    status, body, closes = 0, b"", False
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError as error:
            if "without sending complete" not in str(error):
                raise AssertionError(data) from error
            return status, body, b"", False, True
        if isinstance(event, h11.Response):
            status = event.status_code
            closes = (b"connection", b"close") in event.headers
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body, bytes(client.trailing_data[0]), True, closes
        elif not isinstance(event, h11.InformationalResponse):
            return status, body, b"", False, closes


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the frames that a server has written; asserts that each is one."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        assert first & 0xF0 == 0x80, "a server's frames are whole"
        assert size & 0x80 == 0, "a server's frames have no mask"
        begin = at + {126: 4, 127: 10}.get(size, 2)
        size = int.from_bytes(data[at + 2 : begin]) if begin > at + 2 else size
        assert (begin == at + 2) == (size < 126)
        assert (begin == at + 10) == (size > 0xFFFF)
        assert begin + size <= len(data), "a frame is cut"
        found.append((first & 0x0F, data[begin : begin + size]))
        at = begin + size
    return found


def check_frames(data: bytes, call: Socket) -> None:
    """Assert that a socket's frames are well formed, and say again what its client said."""
    found = frames_of(data)
    assert all(opcode in {TEXT, BINARY, CLOSE, PING, PONG} for opcode, _ in found)
    assert all(opcode != CLOSE for opcode, _ in found[:-1]), "a frame behind the close"
    assert all(len(payload) < 126 for opcode, payload in found if opcode >= CLOSE)
    said: list[Frame] = [
        text.decode() if opcode == TEXT else text for opcode, text in found if opcode in {TEXT, BINARY}
    ]
    assert said == call.messages[: len(said)]


def reference(data: bytes) -> tuple[list[Frame], int | None]:
    """Return the messages that websockets finds in frames, and the code with which it closes; 0: it waits for more."""
    protocol = ServerProtocol(state=OPEN, max_size=MESSAGE_BYTES)
    protocol.receive_data(data)
    messages: list[Frame] = []
    parts: list[bytes] = []
    is_text = False
    for event in protocol.events_received():
        if not isinstance(event, ReferenceFrame) or event.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            continue
        if event.opcode is not Opcode.CONT:
            parts, is_text = [], event.opcode is Opcode.TEXT
        parts.append(bytes(event.data))
        if event.fin:
            try:
                messages.append(b"".join(parts).decode() if is_text else b"".join(parts))
            except UnicodeDecodeError:
                return messages, 1007
    if protocol.close_sent:
        return messages, protocol.close_sent.code
    return messages, None if is_whole(data) else 0


def is_whole(data: bytes) -> bool:
    """Whether a client's frames end with a whole one."""
    at = 0
    while at < len(data):
        found = header_of(data, at)
        if found is None:
            return False
        at = sum(found)
    return at == len(data)


def check_socket(frames: bytes, places: Sequence[int], *, half_closes: bool, path: bytes = b"/ws") -> None:
    """Send frames behind a handshake: what holds for all input, and what websockets makes of them."""
    data = handshake(path) + frames
    check(data, places, half_closes=half_closes)
    server = Server()
    server.feed([data])
    (call,) = server.backend.calls
    assert isinstance(call, Socket)
    if path != b"/bye":
        messages, code = reference(frames)
        assert call.messages == messages
        written = frames_of(bytes(server.transport.out).partition(b"\r\n\r\n")[2])
        closed = [payload for opcode, payload in written if opcode == CLOSE]
        ours = (int.from_bytes(closed[0][:2]) if closed[0] else 1005) if closed else None
        # The edge judges sizes by headers, those of control frames too; all else by whole frames.
        is_partial = bool(server.transport.protocol._partial)
        assert ours == code or is_partial or ours == 1009 or (ours == 1002 and code in {0, 1009}), (ours, code)
    server.end(half_closes=True)


def handshake(path: bytes) -> bytes:
    """Return a handshake that is taken."""
    lines = [b"GET %b HTTP/1.1" % path, b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket"]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="]
    return b"\r\n".join(lines) + b"\r\n\r\n"
