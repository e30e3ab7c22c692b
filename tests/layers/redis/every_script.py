"""A state in which every script has everything to do, and how each is run."""

from collections.abc import Callable
from functools import partial
from typing import Any

from asgictl.app.run import LAST_TURN
from asgictl.channel_layer.links import Order
from asgictl.control import channel_depths
from asgictl.layers.base import Entry, own_channel
from asgictl.layers.redis import check, dead_letters, interface_side, own_channels
from asgictl.layers.redis.keys import WORKERS, Keys
from asgictl.layers.redis.leases import (
    beat_command,
    member,
    move_due_command,
    reap,
    reap_connections_command,
    release_command,
)
from asgictl.layers.redis.process_records import record_command
from asgictl.layers.redis.reader import renew_command
from asgictl.layers.redis.send_commands import Command, send_command, weigh_command
from asgictl.layers.redis.worker_side import COMMIT, commit_arguments
from asgictl.wire.messages import VERSION, Broadcast, Disconnect, Event, Job, Sent, encode
from asgictl.wire.records import JobRecord, Stage, new_id
from tests.layers.conftest import done, receive, request

DEAD, LIVE = "host.7.aa", "host.8.bb"  # workers
GONE, HERE = "host.1.aa", "host.2.bb"  # interfaces
OWN, LIVES = (own_channel("http.request", f"{worker}.asgi") for worker in (DEAD, LIVE))
JOB = Job("a", 1, "thumbs", b"\x80")
LATER = Job("b", 1, "thumbs", b"\x80", 60_000)
RECORD = JobRecord(new_id(0), Stage.READY, b"\x80")
LAST = Disconnect(f"{GONE}/9", LAST_TURN, 1, b"scope", b"state", 1006, "")
EVENTS: tuple[Event, ...] = (request(f"{HERE}/1"), receive(1, "x", connection=f"{HERE}/2"), LAST, JOB)
Run = Callable[[Any], Any]  # through a client; returns what is answered


class Recorder:
    """Runs commands by a client, and keeps them."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.commands: list[Command] = []

    def execute_command(self, *command: Any) -> Any:
        self.commands.append(command)
        return self._client.execute_command(*command)


def fill(client: Any, keys: Keys) -> list[Entry]:
    """Have every key that a script may touch exist; return what a dead worker holds, an entry for each of EVENTS."""
    entries = []
    for event in EVENTS:
        stream = keys.channel(event.channel)
        retries = {"retries": 2} if isinstance(event, Job) else {}  # the next death makes it a dead letter
        client.xadd(stream, {str(VERSION): encode(event)[1], **retries}, "1-0")
        client.sadd(keys.channels, stream)
        client.xgroup_create(stream, WORKERS, "0")
        client.xreadgroup(WORKERS, f"{DEAD}.0", {stream: ">"})
        entries.append(Entry(stream.encode(), b"1-0", event))
    members = [member("worker", each) for each in (DEAD, LIVE)] + [member("interface", each) for each in (GONE, HERE)]
    client.zadd(keys.alive, dict.fromkeys(members, 1))
    for key in (keys.epoch, keys.clock, keys.grace):
        client.set(key, 1)
    for inbox in (f"{DEAD}.0", f"{DEAD}.asgi", f"{LIVE}.asgi"):
        client.xadd(keys.inbox(inbox), {"1": "x"})
    for interface in (GONE, HERE, ""):  # "": what the commit of a job declares, whose interface is none
        client.xadd(keys.replies(interface), {"1": "x"})
        client.hset(keys.turns(interface), f"{interface}/0", 1)
        client.hset(keys.last_wills(interface), f"{interface}/0", f"{keys.channel(LAST.channel)} x")
    client.zadd(keys.own, {keys.channel(OWN): 1})
    for own in (OWN, LIVES):
        client.xgroup_create(keys.channel(own), WORKERS, "0", mkstream=True)
    client.xadd(keys.channel(OWN), {str(VERSION): encode(request(f"{HERE}/3"))[1]})
    client.xadd(keys.broadcast, {str(VERSION): "old"}, "1-0")
    client.set(keys.trimmed, "0-0")
    client.xadd(keys.dead, {str(VERSION): "x", "channel": JOB.channel, "reason": "x"}, "1-0")
    client.zadd(keys.records, {"! 0": 0})
    client.zadd(keys.delayed(JOB.channel), {f"{VERSION} due": 1, f"{VERSION} later": 1 << 50})
    for worker in (DEAD, LIVE):
        client.zadd(keys.heard, {worker: 1})
        client.set(keys.record(worker), "x")
    client.set(keys.weight(JOB.channel), "0 0")
    client.set(keys.manifest, "x", 60)
    client.xgroup_create(keys.check, "any", mkstream=True)
    client.set(keys.layer + "last:x", 0)
    client.hset(keys.layer + "held", "other", 1)
    client.hset(keys.layer + "members", keys.layer + "shared", f"100 {1 << 50} work")
    for stream in ("groups", "inbox", "shared"):
        client.xadd(keys.layer + stream, {"m": "x"})
    return entries


def orders(layer: str) -> dict[str, Order]:
    """Return all that a channel layer writes. layer: what its keys begin with."""
    names = {
        "group": ("groups", "members"),
        "local": ("inbox", "held"),
        "shared": ("shared", "groups"),
        "take": ("shared", "inbox"),
        "direct": ("inbox", ""),
        "join": ("shared", "members"),
        "leave": ("shared", "members"),
        "flush": ("groups", ""),
    }
    found = {
        what: Order(what, layer + stream, beside and layer + beside, 60_000, 100, "name", b"data")
        for what, (stream, beside) in names.items()
    }
    found["group of shared channels"] = found["group"]._replace(more=(layer + "shared",))
    stored = ("groups", "inbox", "shared", "members", "held", "last:x")
    found["flush"] = found["flush"]._replace(more=tuple(layer + each for each in stored))
    return found


def runs(keys: Keys, entries: list[Entry]) -> dict[str, tuple[Run, object]]:
    """Return of every script how it is run, and its answer; None where that is not one number."""
    _, turn, last, job = entries
    last_done = done(LAST_TURN, connection=f"{GONE}/9")
    joining = done(1, connection=f"{HERE}/2", joins=["g"])
    sends: list[Sent] = [Broadcast("g", "x"), JOB, LATER, RECORD]
    streams = [entry.stream for entry in entries]
    commands: dict[str, tuple[Command, object]] = {
        "commit": (("EVAL", COMMIT, *commit_arguments(keys, turn, joining, sends, b"x")), 1),
        "commit of a disconnect": (("EVAL", COMMIT, *commit_arguments(keys, last, last_done, [])), 1),
        "commit of a job": (("EVAL", COMMIT, *commit_arguments(keys, job, None, sends)), 1),
        "send": (send_command(keys, JOB), 1),
        "keep": (send_command(keys, RECORD), None),
        "send later": (send_command(keys, LATER, 100, 1 << 30), 1),
        "weigh": (weigh_command(keys, JOB.channel), None),
        "dead letter": (dead_letters.dead_letter_command(keys, JOB.channel, encode(JOB)[1], "r"), None),
        "renew": (renew_command(keys.inbox(f"{LIVE}.asgi")), None),
        "beat": (beat_command(keys, "worker", LIVE, b"1", [LIVES]), None),
        "record": (record_command(keys, LIVE, b"x"), 1),
        "deregister": (record_command(keys, DEAD, b""), 1),
        "move due": (move_due_command([keys.channel(JOB.channel)]), None),
        "release": (release_command(keys, entries), len(EVENTS)),
        "trim": (("EVAL", interface_side._TRIM, 2, keys.broadcast, keys.trimmed, 60_000, 1 << 20), None),
        "remove": (("EVAL", interface_side._REMOVE, 1, turn.stream, turn.id), 0),
        "requeue": (("EVAL", dead_letters._REQUEUE, 2, keys.dead, job.stream, "1-0", *encode(JOB)), 1),
        "depth": (("EVAL", own_channels._DEPTH, 2, *streams[:1], keys.channel(OWN)), 2),
        "check": (("EVAL", check._TRY, 1, keys.check), 2),
        "depths": (("EVAL", channel_depths._LOOK, len(streams), *streams, WORKERS), None),
    }

    def run(command: Command, client: Any) -> Any:
        return client.execute_command(*command)

    def reaped(role: str, id: str, client: Any) -> Any:
        return reap(client, keys, member(role, id))

    def reaped_connections(client: Any) -> Any:
        touched: list[bytes] = []
        some = [f"{GONE}/{number}".encode() for number in (0, 9)]  # 9 still has an event
        while isinstance(answer := run(reap_connections_command(keys, GONE, some, touched), client), list):
            touched += answer
        return answer

    found: dict[str, tuple[Run, object]] = {
        name: (partial(run, command), answer) for name, (command, answer) in commands.items()
    }
    for what, order in orders(keys.layer).items():
        answer = None if order.what == "group" else 1
        found[what] = partial(run, order.command(keys.layer + "last:x", 1)), answer
    found["reap a worker"] = partial(reaped, "worker", DEAD), len(EVENTS) + 1
    found["reap connections"] = reaped_connections, 1
    found["reap an interface"] = partial(reaped, "interface", GONE), 0
    return found
