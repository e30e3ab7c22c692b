"""A line between two interface processes: what wire/handover.py says, over a Unix stream socket.

A Record's descriptor travels with the first byte of its frame, and each length is read by itself: so it is known whose
descriptor has come, and a record whose descriptor got lost comes without.
"""

import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from asgictl.errors import WireError
from asgictl.wire.handover import LENGTH_BYTES, length_of

logger = logging.getLogger("asgictl.handover")
PIECES = 64  # that are read in one turn of the loop
M = TypeVar("M")


class Line(Generic[M]):
    """One end. sock: connected; it is the line's. decode: of what the other end says.

    heard: called with each message that has come whole and the descriptor that came with it, which is the caller's.
    What it raises is logged, and the line goes on: to close it would tell the other end that this process is dead.
    ended: called once when the other end is closed, as its process has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        decode: Callable[[bytes], M],
        heard: Callable[[M, int | None], None],
        ended: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decode, self._on_heard, self._on_ended = decode, heard, ended
        self._header, self._content = b"", bytearray()
        self._length = 0
        self._descriptor: int | None = None
        self._outgoing: deque[tuple[memoryview, int | None]] = deque()
        self._has_ended = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def send(self, frame: bytes, descriptor: int | None = None) -> None:
        """Send a message in its frame. descriptor: sent with it, and to be kept open until it is answered."""
        if not self._has_ended:
            self._outgoing.append((memoryview(frame), descriptor))
            if len(self._outgoing) == 1:
                self._write()

    def close(self) -> None:
        """End it; ended() is not called."""
        if not self._has_ended:
            self._has_ended = True
            self._outgoing.clear()
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._drop_descriptor()
            self._socket.close()

    def _write(self) -> None:
        while self._outgoing:
            data, descriptor = self._outgoing[0]
            rights = [] if descriptor is None else [struct.pack("i", descriptor)]
            try:
                sent = self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, each) for each in rights])
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:  # reading tells of the end, behind what the other has still said
                self._outgoing.clear()
                break
            if sent < len(data):
                self._outgoing[0] = (data[sent:], None)
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            for _ in range(PIECES):
                if self._has_ended:
                    return
                if not self._read_piece():
                    break
            else:
                self._loop.call_soon(self._read)  # uvloop tells of a dead end's socket once, whatever is left in it
                return
        except BlockingIOError:
            return
        except ConnectionResetError:  # it died before it had read all; what it had said stands behind this
            self._loop.call_soon(self._read)
            return
        except (OSError, WireError) as error:
            logger.warning("lost the connection of a hand-over: %s", error)
        self.close()
        self._on_ended()

    def _read_piece(self) -> bool:
        """Read the next bytes of a frame; returns whether there were any before the end."""
        if len(self._header) < LENGTH_BYTES:
            data, descriptors, _, _ = socket.recv_fds(self._socket, LENGTH_BYTES - len(self._header), 1)
            if descriptors:
                self._drop_descriptor()
                (self._descriptor,) = descriptors
                os.set_inheritable(self._descriptor, False)
            self._header += data
            if len(self._header) == LENGTH_BYTES:
                self._length = length_of(self._header)
            return bool(data)
        data = self._socket.recv(self._length - len(self._content))
        self._content += data
        if len(self._content) == self._length:
            content, descriptor = bytes(self._content), self._descriptor
            self._header, self._descriptor = b"", None
            self._content.clear()
            self._hear(content, descriptor)
        return bool(data)

    def _hear(self, content: bytes, descriptor: int | None) -> None:
        try:
            self._on_heard(self._decode(content), descriptor)
        except Exception:
            logger.exception("skipped a message of a hand-over")

    def _drop_descriptor(self) -> None:
        if self._descriptor is not None:
            socket.close(self._descriptor)
            self._descriptor = None
