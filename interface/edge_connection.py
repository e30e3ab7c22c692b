"""A client's connection: reads in slices, notes whether its writes wait, and ends in good order.

One read brings up to 256 KiB. As empty WebSocket fragments or tiny requests these keep the event loop, and all
neighbours, for a second. So connections parse them in slices, in turn, all together for TURN_SECONDS in a turn of the
loop; the rest waits, and nothing more is read meanwhile. uvloop writes what a turn of the loop has written together.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Coroutine
from time import monotonic
from typing import Any, cast

from asgictl.interface.edge import Edge
from asgictl.interface.framing import Defaults
from asgictl.interface.limits import SLICE_BYTES, STALLED
from asgictl.wire.messages import Address

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER


class EdgeConnection(asyncio.Protocol):
    """Base of a connection. A subclass has parse(), takes_more() and the like."""

    __slots__ = (
        "_is_discarding",
        "_is_due",
        "_parsed",
        "_unread",
        "_written_bytes",
        "client",
        "edge",
        "home",
        "is_full",
        "is_held",
        "is_paused",
        "is_secure",
        "server",
        "state",
        "transport",
        "turn_bytes",
    )

    transport: asyncio.Transport

    def __init__(self, edge: Edge, state: Any) -> None:
        self.edge: Edge = edge
        self.state: Any = state  # uvicorn's ServerState
        self.client: Address | None = None
        self.server: Address | None = None
        self.home: str = ""  # the worker that has answered last
        self.is_secure: bool = False
        self.is_full: bool = False  # the transport's buffer is
        self.is_paused: bool = False  # what was written waits for the client
        self.turn_bytes: int = 0
        self._written_bytes = 0  # that waited when `stalled` began
        self._unread = b""
        self._parsed = 0  # bytes of it
        self.is_held: bool = False  # the transport does not read
        self._is_due = False  # parse_on() is
        self._is_discarding = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.state.connections.add(self)

    def eof_received(self) -> bool:
        """The client sends nothing more: the connection is closed behind what this turn has written."""
        self.edge.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread, self._parsed, self._is_discarding, self.is_full = b"", 0, True, False
        self.state.connections.discard(self)
        self.edge.forget(self)

    def defaults(self) -> Defaults:
        """Return the server's default headers."""
        return self.edge.defaults(self.state.default_headers)

    def write(self, data: bytes) -> None:
        """Write at the end of the loop's turn."""
        if self.is_paused:
            self.turn_bytes += len(data)
        self.edge.write(self, data)

    def run_task(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run what serves a request or a socket, in a context of its own; uvicorn waits for it when it stops."""
        task = self.edge.loop.create_task(serving, context=self.edge.context.copy())
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        found: int = self.transport.get_extra_info("socket").fileno()
        return found

    def parse(self, data: bytes) -> int:
        """Parse the next bytes. Return how many of the last ones are not parsed, but to be given again."""
        raise NotImplementedError

    def takes_more(self) -> bool:
        """Whether more can be parsed now. Once it can, feed() is to be called."""
        raise NotImplementedError

    def reads_on(self) -> bool:
        """Whether there is room for what more is read."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Parse what was read: now as much as a turn allows, the rest in the turns that follow."""
        if self._is_discarding:
            return
        if len(data) > SLICE_BYTES or self._unread or not self.takes_more():
            self._unread, self._parsed = self._unread[self._parsed :] + data, 0
            if not self._is_due:
                self._is_due = True
                self.edge.parse(self)
            if self._is_due:
                self._hold(True)
        elif left := self.parse(data):  # as rarely as it can be
            self.unread(data[-left:])
        elif not self.reads_on():
            self.feed()

    def unread(self, data: bytes) -> None:
        """Parse these bytes once more can be parsed."""
        self._unread, self._parsed = data, 0
        self.feed()

    def feed(self) -> None:
        """Go on parsing, in the loop's next turn, or stop reading."""
        if self._is_discarding:
            return
        if self._unread and self.takes_more() and not self._is_due:
            self._is_due = True
            self.edge.parse_soon(self)
        self._hold(bool(self._unread) or not self.reads_on())

    def discard(self) -> None:
        """Read on, but parse nothing more: a client is to be able to read why it is closed."""
        self._is_discarding = True
        self._unread, self._parsed = b"", 0
        self._hold(False)

    def parse_on(self, until: float) -> None:
        """Parse what was read, for some time; what is left is due again."""
        self._is_due = False
        while self._parsed < len(self._unread) and self.takes_more():
            piece = self._unread[self._parsed : self._parsed + SLICE_BYTES]
            self._parsed += len(piece)
            self._parsed -= self.parse(piece)
            if monotonic() > until:
                break
        if self._parsed >= len(self._unread):
            self._unread, self._parsed = b"", 0  # thousands of idle connections keep nothing
        self.feed()

    def _hold(self, holds: bool) -> None:
        if holds != self.is_held and not self.transport.is_closing():
            self.is_held = holds
            if holds:
                self.transport.pause_reading()
                self.edge.held.add(self)
            else:
                self.transport.resume_reading()
                self.edge.held.discard(self)

    def pause_writing(self) -> None:
        """Look again in the loop's next turn: what is written in one turn waits for its end at least."""
        self.is_full = True
        self.edge.loop.call_soon(self._pause)

    def _pause(self) -> None:
        if self.is_full:
            self.is_paused = True
            self._written_bytes = self.transport.get_write_buffer_size()
            self.edge.stalled.start(self, self.edge.loop.time())

    def resume_writing(self) -> None:
        self.is_full = False
        if self.is_paused:
            self.is_paused = False
            self.edge.stalled.stop(self)
            self.resumed()

    def resumed(self) -> None:
        """Write on: the client has taken what waited."""

    def check_progress(self) -> None:
        """Cut the connection if the client has taken nothing of what waits."""
        size = self.transport.get_write_buffer_size()
        if size >= self._written_bytes:
            self.edge.reject(STALLED)
            self.transport.abort()
        else:
            self._written_bytes = size
            self.edge.stalled.start(self, self.edge.loop.time())

    def end(self) -> None:
        """Close after what was written; read on for a while, as a reset would take it from the client."""
        self.discard()
        self.edge.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.edge.linger.start(self, self.edge.loop.time())
        else:
            self.transport.close()

    def check_linger(self) -> None:
        """Cut the connection, unless its client still takes what was written."""
        if not self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        if not self.is_paused:
            self.is_full = True
            self._pause()
        self.edge.linger.start(self, self.edge.loop.time())

    def finish(self) -> None:
        """Close at once, or after what waits for the client."""
        self.edge.flush()
        if self.transport.get_write_buffer_size():
            self.end()
        else:
            self.transport.close()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being parsed and all that was written has left this process; not over TLS."""
        self.edge.flush()
        is_busy = self._is_due or self._is_discarding or self.is_full or self.transport.is_closing()
        return not (is_busy or self.transport.get_write_buffer_size() or self.transport.get_extra_info("sslcontext"))

    def let_go(self) -> None:
        """Close this process's descriptor alone: another has the connection, so its client is to notice nothing."""
        self.state.connections.discard(self)
        self.edge.forget(self)
        self.transport.set_protocol(asyncio.Protocol())  # which hears of the end in this one's stead
        self.transport.abort()

    def reset(self) -> None:
        """Close with a reset, so that nothing looks like an end."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def unread_bytes(self) -> int:
        """Return how much has come and is not parsed, in the kernel too."""
        waiting: int = struct.unpack("i", fcntl.ioctl(self.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0]
        return len(self._unread) - self._parsed + waiting

    def client_left(self) -> None:
        """The client sends nothing more; what it has sent is not read yet."""

    def close_idle(self) -> None:
        """Close a connection on which nothing is under way."""
        self.finish()


def addresses(transport: asyncio.Transport) -> tuple[Address | None, Address | None]:
    """Return a connection's peer, None for that of a Unix socket, and its own address."""
    connected = transport.get_extra_info("socket")
    try:
        peer, own = connected.getpeername(), connected.getsockname()
    except OSError:  # it has gone already
        return None, None
    if connected.family == socket.AF_UNIX:
        return None, (own, None) if isinstance(own, str) else None
    return (peer[0], peer[1]), (own[0], own[1])
