"""Watches which keys scripts touch: each must be among those that the script was called with."""

import ast
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from asgictl.layers.redis.link import pack
from asgictl.layers.redis.sync_connection import SyncConnection
from asgictl.layers.redis.worker_side import COMMIT
from tests.conftest import until

LINE = re.compile(rb"[\d.]+ \[\d+ (.*?)\] (.*)", re.DOTALL)
WORD = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
MOST_BYTES = 64 << 10  # of a word that may be a key or a script: a longer one is content, whatever it says
KEYLESS = {b"TIME"}  # what a script may call that names no key; KEYS and SCAN are not among it


class Witness:
    """Hears of a server all that it runs, from MONITOR. texts: of the scripts that ran, once they were judged."""

    def __init__(self, url: str) -> None:
        self.texts: list[str] = []
        self._client = redis.Redis.from_url(url)
        self._client.set_response_callback("COMMAND", lambda reply, **_options: reply)
        self._lines: list[bytes] = []
        self._connection = SyncConnection(url)
        self._connection.send(pack(("MONITOR",)))
        assert self._connection.receive() == b"OK"
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OSError):  # a test may cut every connection
            while True:
                self._lines.append(self._connection.receive())

    def undeclared(self) -> list[str]:
        """Return what scripts have called up to now with keys that they had not declared, or with none."""
        end = secrets.token_hex(8).encode()
        with suppress(redis.RedisError):  # a test may leave its server unusable
            self._client.echo(end)
            until(lambda: any(end in line for line in self._lines[-9:]) or not self._thread.is_alive(), "MONITOR's end")
        calls: list[tuple[set[bytes], list[bytes]]] = []
        declared: set[bytes] = set()
        for line in list(self._lines):
            caller, words = _parsed(line)
            if caller == b"lua":
                calls.append((declared, words))
            elif words[0].upper() in {b"EVAL", b"EVALSHA"}:
                declared = set(words[3 : 3 + int(words[2])])
                self._note(words[1].decode())
        return [
            b" ".join(words[:4]).decode("latin-1")
            for (may, words), keys in zip(calls, self._keys([words for _, words in calls]), strict=True)
            if not keys <= may
        ]

    def _note(self, text: str) -> None:
        if text == hashlib.sha1(COMMIT.encode()).hexdigest():  # noqa: S324 - Redis's own
            text = COMMIT
        if text not in self.texts:
            self.texts.append(text)

    def _keys(self, commands: list[list[bytes]]) -> Iterator[set[bytes]]:
        """Ask the server which keys commands name; b"?" stands for none where there should be some."""
        pipe = self._client.pipeline(transaction=False)
        for words in commands:
            pipe.execute_command("COMMAND", "GETKEYS", *words)
        answers: list[Any] = pipe.execute(raise_on_error=False) if commands else []
        for words, keys in zip(commands, answers, strict=True):
            is_keyless = isinstance(keys, redis.ResponseError) and words[0].upper() in KEYLESS
            yield set() if is_keyless else {b"?"} if isinstance(keys, Exception) else set(keys)

    def close(self) -> None:
        self._connection.close()
        self._thread.join()
        self._client.close()


def _parsed(line: bytes) -> tuple[bytes, list[bytes]]:
    """Return who called (an address, or "lua") and the words of the command, as MONITOR escapes them."""
    matched = LINE.fullmatch(line)
    assert matched, line
    return matched[1], [_unescaped(word) for word in WORD.findall(matched[2])]


def _unescaped(word: bytes) -> bytes:
    if len(word) > MOST_BYTES:
        return b"content"
    return ast.literal_eval("b" + word.decode("latin-1")) if b"\\" in word else word[1:-1]


@contextmanager
def witnessing(url: str) -> Iterator[Witness]:
    """Fail at the end when a script touched what it had not declared."""
    witness = Witness(url)
    try:
        yield witness
        assert witness.undeclared() == []
    finally:
        witness.close()
