"""Writes entries, fields, members and whole keys of no sense into an instance's Redis; the same for the same seed."""

import random
from contextlib import suppress
from typing import Any

import msgspec
import redis

from asgictl.wire import messages as wire
from asgictl.wire.state import encode_state

PREFIX = "asgictl:{default}:"
SCOPE = wire.Scope("GET", "http", "1.1", "", "/", b"/", b"", [(b"host", b"x")], ("127.0.0.1", 1), None)
HUGE = 1 << 70
LAST_ID = "18446744073709551615-18446744073709551615"  # after which a stream takes no other
LOOK_WRITES = 16
ALIVE = PREFIX + "alive"


class Junk:
    """What may stand where: values, mutated messages, and commands that put them into keys that exist.

    Connections, workers and interfaces that it names are none that live, so nobody else's entries are hit.
    """

    def __init__(self, client: "redis.Redis", seed: int) -> None:
        self._client: Any = client
        self.seed = seed
        self._chance = random.Random(seed)
        self._found: dict[str, str] = {}
        self._looked_at = 0
        self.done: list[tuple[object, ...]] = []

    def entry(self) -> None:
        """Add something beside what is there: to a stream, hash, zset or set of the instance."""
        key = self._chance.choice([key for key, kind in self._kinds().items() if kind != "string"])
        self._try(*self._addition(key, self._kinds()[key]))

    def key(self) -> None:
        """Replace what is there: another type, another value, ids that leave no room.

        Leases are not taken away: whoever has none ends, as it should.
        """
        keys = [*self._kinds()]
        key, other = (self._chance.choice(keys) for _ in range(2))
        commands: list[tuple[object, ...]] = [("SET", key, self.value())]
        if ALIVE not in {key, other}:
            commands += [
                ("DEL", key),
                ("XADD", key, LAST_ID, "1", self.value()),
                ("XSETID", key, LAST_ID),
                ("RENAME", key, other),
                ("PEXPIRE", key, self._chance.choice([1, 1000])),
            ]
        self._try(*self._chance.choice(commands))

    def _kinds(self) -> dict[str, str]:
        """Return the types of the instance's keys, as they were a few writes ago."""
        if len(self.done) >= self._looked_at + LOOK_WRITES or not self._found:
            keys = sorted(key.decode() for key in self._client.scan_iter(PREFIX + "*", count=1000))
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.type(key)
            kinds = (kind.decode() for kind in pipeline.execute())
            self._found = {key: kind for key, kind in zip(keys, kinds, strict=True) if kind != "none"}
            self._looked_at = len(self.done)
        return self._found

    def _try(self, *command: object) -> None:
        self.done.append(command)
        with suppress(redis.ResponseError):  # not of this type, or no such room: the next one
            self._client.execute_command(*command)

    def _addition(self, key: str, kind: str) -> tuple[object, ...]:
        rest = key.removeprefix(PREFIX)
        if kind == "stream":
            return ("XADD", key, "NOMKSTREAM", "*", *self._fields(rest))
        if kind == "hash":
            return ("HSET", key, self._connection(), self.value())
        if kind == "zset" and rest == "alive":
            return ("ZADD", key, self._chance.choice([-1, 0, 1, 1e18, "inf", "-inf"]), self._member())
        if kind == "zset":
            field, value = self._fields("ch:background.jobs")[:2]
            member = self._chance.choice([self.value(), b"%b %b" % (_bytes(field), _bytes(value))])
            return ("ZADD", key, self._chance.choice([0, 1, "inf", "-inf"]), member)
        name = self._chance.choice([self.value(), PREFIX.encode() + b"ch:background." + self.value(), *self._found])
        return ("SADD", key, name)

    def _fields(self, stream: str) -> list[object]:
        """Return an entry's fields: a mutated message that belongs into the stream, or nothing of the kind."""
        value = msgspec.msgpack.encode(self._mutated(self._chance.choice(self._messages(stream))))
        fields: list[object] = ["1", self._damaged(value)]
        match self._chance.randrange(8):
            case 0:
                fields = [self.value(), self.value()]
            case 1:
                fields = [self._chance.choice(["0", "2", "77", "-1", "", "1.0"]), fields[1]]
            case 2 | 3:
                fields += [self._chance.choice(["position", "retries", "reason", self.value()]), self.value()]
            case 4:
                fields += [self.value() for _ in range(2 * self._chance.randrange(4))]
        return fields

    def _messages(self, stream: str) -> list[wire.Wire]:
        connection, entry, scope = self._connection(), b"1-1", wire.encode_scope(SCOPE)
        turn = (connection, 1, 1, scope, b"")
        if stream.startswith("re:"):
            return [
                wire.Response(connection, 0, 200, [], b"x", inbox="none.0"),
                wire.Want(connection, 1, entry, "none.0", 10, 1),
                wire.Frames(connection, ["x"], 1, entry),
                wire.Closed(connection, 1000, "", 1, entry),
                wire.Done(connection, 1, ["x"], b"", wire.Accept(None, []), None, ["g"], ["g"], inbox="none.0"),
                wire.Lost(connection, 1, 1, True),
                wire.Died("none"),
            ]
        if stream.startswith("in:"):
            return [
                wire.Chunk(connection, entry, 1, b"x", True),
                wire.Credit(connection, entry, 1, 1),
                wire.Gone(connection, entry),
                wire.Incoming(connection, entry, "x", 1),
                wire.Ended(connection, entry, 1000, "", 1),
                wire.InterfaceDied("none"),
            ]
        if stream.startswith("bc"):
            return [wire.Broadcast("nobody's", "x")]
        return [
            wire.Request(connection, 1, SCOPE, b""),
            wire.Request(connection, 2, SCOPE, b"", True, 0),
            wire.Connect(*turn),
            wire.Receive(*turn, ["x"], 1),
            wire.Disconnect(*turn, 1000, ""),
            wire.Job("none:1", 1, "jobs", encode_state({"body": b"junk"})),
            wire.Job("none:2", 1, "no such channel", b""),
        ]

    def _mutated(self, message: wire.Wire) -> Any:
        """Return a message as the array that it is encoded as, with one of its values another, or none."""
        whole = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
        if self._chance.random() < 0.2:
            return whole
        array, at = whole, self._chance.randrange(1, len(whole))
        while isinstance(array[at], list) and array[at] and self._chance.random() < 0.7:
            array, at = array[at], self._chance.randrange(len(array[at]))
        array[at] = self._odd()
        return whole[: self._chance.randrange(1, len(whole) + 1)] if self._chance.random() < 0.1 else whole

    def _odd(self) -> Any:
        return self._chance.choice(
            [
                *(None, True, -1, 0, 1, 255, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 0.5, float("nan")),
                *(float("inf"), "", "\0", "é" * 100, "x" * 70_000, b"", b"\xff", b"\xc1", b"x" * 70_000),
                *([], [[]], [None], {}, {"a": 1}, [["x"] * 3], msgspec.msgpack.Ext(1, b"x")),
            ]
        )

    def _damaged(self, value: bytes) -> bytes:
        damaged = bytearray(value)
        match self._chance.randrange(6):
            case 0:
                for _ in range(self._chance.randrange(1, 4)):
                    damaged[self._chance.randrange(len(damaged))] = self._chance.randrange(256)
            case 1:
                del damaged[self._chance.randrange(len(damaged)) :]
            case 2:
                damaged += self.value()
        return bytes(damaged)

    def value(self) -> bytes:
        """Return bytes that are no value of ours, or only look like one."""
        texts = [b"", b"0", b"-1", b"abc", b"1-1", b"1e400", b"nan", b"%d" % HUGE, b"%d-%d" % (HUGE, HUGE), b"\xc1"]
        texts += [b"\x90", b"\x93\xa4lost", b"1 \xc1", b"nowhere x", b"x" * 70_000]
        return self._chance.choice([*texts, self._chance.randbytes(self._chance.randrange(40))])

    def _connection(self) -> str:
        return f"{self._chance.choice(['none', 'no.1.x', ''])}/{self._chance.randrange(1 << 20):x}"

    def _member(self) -> bytes:
        number = b"%d" % self._chance.randrange(50)
        roles = [b"worker/none." + number, b"interface/none." + number, b"worker/", b"interface/", b"other/x", b"none"]
        return self._chance.choice([*roles, self.value()])


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
