"""One blocking connection to Redis: redis-py connects, authenticates and does TLS; hiredis alone talks.

One read takes all answers that have come, which measured a third of redis-py's time for each.
"""

import logging
import socket
import ssl
import struct
from contextlib import suppress
from time import monotonic
from typing import Any, cast

import hiredis

from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.link import SILENT_SECONDS
from asgictl.machine import forks

logger = logging.getLogger("asgictl.layers")
RECEIVE_BYTES = 64 << 10


class SyncConnection:
    """Connects when it is made; raises redis-py's errors, and Forked in a child that a handler has forked.

    One thread sends and receives; any other may send behind it, and cut a silence.
    """

    def __init__(self, url: str) -> None:
        forks.check()
        self._held = endpoint(url).connect()
        self._socket = cast(socket.socket, self._held._sock)  # redis-py has no public name for it
        _have_kernel_time(self._socket)
        self._reader = hiredis.Reader()
        self._silent_since = 0.0  # while an answer is waited for

    def fileno(self) -> int:
        """Return the open file of the connection, -1 once it is closed."""
        return self._socket.fileno()

    def send(self, packed: bytes) -> None:
        """Send commands; raises OSError."""
        self._socket.sendall(packed)

    def receive(self) -> Any:
        """Return the next answer, which may be a ReplyError; raises OSError."""
        try:
            while (answer := self._reader.gets()) is False:
                self._reader.feed(self._receive())
        except hiredis.ProtocolError as error:
            raise ConnectionError(f"malformed answer of Redis: {error}") from error
        return answer

    def _receive(self) -> bytes:
        self._silent_since = monotonic()
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        finally:
            self._silent_since = 0.0
        if not data:
            raise ConnectionError("the connection to Redis was lost")
        return data

    def was_cut(self) -> bool:
        """Whether Redis has closed it while nobody used it, as its `timeout` does."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)  # nothing is due, so whatever there is ends it
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(timeout)
        return True

    def end_silence(self) -> None:
        """Cut it if it has owed an answer for SILENT_SECONDS. By another thread, which Redis answers."""
        if (since := self._silent_since) and monotonic() - since > SILENT_SECONDS:
            logger.warning("a connection to Redis was silent for %.0f s and is closed", SILENT_SECONDS)
            with suppress(OSError):  # it has been closed meanwhile
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, whatever was sent."""
        self._held.disconnect()


def _have_kernel_time(opened: socket.socket) -> None:
    """Let the kernel keep a socket's timeout: Python keeps it by a poll(2) before each recv(2) and send(2)."""
    if seconds := opened.gettimeout():
        kept = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            opened.setsockopt(socket.SOL_SOCKET, option, kept)
        opened.settimeout(None)
