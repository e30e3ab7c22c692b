"""A worker's side of the channel layer on Redis Streams."""

import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic, sleep
from typing import Any

import hiredis
import redis
from msgspec.structs import replace

from asgictl.errors import WireError
from asgictl.layers.base import REFUSED_SECONDS, Entry, Reject, ignored
from asgictl.layers.redis.keys import WORKERS, Keys, interface_of
from asgictl.layers.redis.leases import LEASE_MILLISECONDS, release_command
from asgictl.layers.redis.link import AWAY, BACKOFF_SECONDS, pack
from asgictl.layers.redis.reader import BLOCK_MILLISECONDS, LAST_ID, READ_COUNT, PassedOver, renew_command
from asgictl.layers.redis.refused import AGAIN_SECONDS, REFUSED, REFUSED_BYTES, Commit, end_commands
from asgictl.layers.redis.scripts import script
from asgictl.layers.redis.send_commands import SEND, Broadcasts, Command, reply_command, send_arguments
from asgictl.layers.redis.sync_connection import SyncConnection
from asgictl.wire.manifest import Manifest, encode_manifest
from asgictl.wire.messages import (
    FIELD,
    Disconnect,
    Done,
    Event,
    Frames,
    Job,
    LastReply,
    Response,
    Sent,
    Want,
    WorkerMessage,
    decode_event,
    decode_worker_message,
    encode,
)

logger = logging.getLogger("asgictl.layers")
AWAY_SECONDS = 30.0  # for which a handler waits for Redis
RESEND_SECONDS = 0.1  # between its attempts
MOST_DEATHS = 1000  # that a job can have seen: three make it a dead letter
COMMIT = SEND + script("commit")
COMMIT_SHA = hashlib.sha1(COMMIT.encode(), usedforsecurity=False).hexdigest()  # as Redis knows it (EVALSHA)


def _event_of(fields: list[bytes] | None) -> Event:
    """Return the event of an entry; raises whatever an entry of no sense makes it raise."""
    if fields is None:
        raise WireError("the entry was deleted")
    event = decode_event(fields[0], fields[1])
    if isinstance(event, Job) and len(fields) > 2:  # take_back.lua has counted the workers that died of it
        deaths = int(fields[3])
        if not 0 <= deaths <= MOST_DEATHS:
            raise WireError(f"{deaths} workers cannot have died of it")
        event = replace(event, attempt=event.attempt + deaths)
    return event


def commit_arguments(
    keys: Keys, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes = b""
) -> Command:
    """Return what follows the script in EVALSHA: the number of keys, the keys and the arguments of commit.lua.

    last_will: the disconnect event to run should the interface die, b"" when it has not changed.
    """
    stream, connection, disconnect = entry.stream, "", ""
    own: tuple[str | bytes, ...] = (stream,)
    turn = b""
    if reply is not None:
        connection = reply.connection
        replies, turns, last_wills = keys.of_interface(interface_of(connection))
        own = (stream, replies)
        if isinstance(reply, Done) and reply.number:  # an ASGI application's handshake is no turn
            turn = b"%d" % reply.number
            disconnect = "1" if isinstance(entry.event, Disconnect) else ""
            own = (stream, replies, turns)
            if last_will or disconnect or reply.joins:
                own = (*own, last_wills, keys.broadcast) if reply.joins else (*own, last_wills)
    if last_will:  # it goes to the pool that serves this connection
        pool = stream.decode().partition(entry.event.channel)[2]
        last_will = keys.channel(Disconnect.channel + pool).encode() + b" " + last_will
    field, value = encode(reply) if reply else (FIELD, b"")
    if not sends:
        return (len(own), *own, entry.id, connection, turn, disconnect, last_will, field, value)
    destinations: list[str] = []
    sent: list[int | bytes] = []
    for each in sends:
        key, delay, content = send_arguments(keys, each)
        destinations.append(key)
        sent += (delay, content)
    number = len(own) + len(destinations)
    return (number, *own, *destinations, entry.id, connection, turn, disconnect, last_will, field, value, *sent)


class _Sent:
    """A command on its way. commit: what it commits. refused_until: when an attempt is the last one, 0 at first."""

    __slots__ = ("commit", "packed", "refused_until")

    def __init__(self, packed: bytes, commit: Commit | None, refused_until: float) -> None:
        self.packed = packed
        self.commit = commit
        self.refused_until = refused_until


class RedisWorkerLayer:
    """A worker's side of the split: blocking, for one thread, but for flush().

    Commits are buffered and go out with the next read, or by flush(). A commit that was not answered when the
    connection broke is sent again: Redis refuses it if it had succeeded.

    is_own: the channels are the worker's own, whose streams its beats create, and nothing else.
    """

    def __init__(
        self, url: str, name: str, consumer: str, channels: list[str], reject: Reject = ignored, *, is_own: bool = False
    ) -> None:
        self.keys: Keys = Keys(name)
        self.client_id: Any = 0  # of the connection that reads, for CLIENT UNBLOCK
        self.refused: int = 0  # commits that came too late
        self._url = url
        self._consumer = consumer
        self._is_own = is_own
        self.inbox = consumer  # where messages to this thread go
        self._mail: SyncConnection | None = None
        self._broadcasts = Broadcasts(consumer)
        self._mailed = b"0"  # the last message's id
        self._last_message: list[bytes] = []
        self._streams = [self.keys.channel(channel) for channel in channels]
        self._reads: dict[int, bytes] = {}  # by their counts, the commands that read
        self._connection: SyncConnection | None = None
        self._reject = reject
        self._passed_over = PassedOver(reject)
        self._sending = threading.Lock()
        self._output: list[_Sent] = []
        self._unanswered: list[_Sent] = []  # on their way
        self._refused: list[_Sent] = []
        self._refused_bytes = 0
        self._again_at = 0.0
        self._recover = False  # read this consumer's own pending entries before new ones

    def connect(self) -> None:
        """Connect and create the cursors; raises redis-py's errors."""
        self._connection = SyncConnection(self._url)
        self._ask("SCRIPT", "LOAD", COMMIT)
        self.client_id = self._ask("CLIENT", "ID")
        inbox = self.keys.inbox(self.inbox)
        shared = [] if self._is_own else self._streams
        for stream in (*shared, inbox):  # an inbox's group only makes it exist
            try:
                self._ask("XGROUP", "CREATE", stream, WORKERS, "0", "MKSTREAM")
                if stream == inbox:  # it begins anew
                    self._mailed = b"0"
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        for stream in shared:  # a release finds this worker, and its inbox, by its consumers
            self._ask("XGROUP", "CREATECONSUMER", stream, WORKERS, self._consumer)
        if shared:
            self._ask("SADD", self.keys.channels, *shared)

    @property
    def settled(self) -> bool:
        """Whether every commit has been answered."""
        return not (self._output or self._unanswered or self._refused)

    def publish_manifest(self, manifest: Manifest) -> None:
        """Tell interfaces what this release serves, for as long as a worker's lease: its beats renew it."""
        self._ask("SET", self.keys.manifest, encode_manifest(manifest), "PX", LEASE_MILLISECONDS["worker"])

    def close(self) -> None:
        """Send what was buffered, and close. The cursors and the inbox are left by reaping this worker."""
        try:
            self._again_at = 0.0
            self._buffer_refused()
            self._drain(self._send())
        except (redis.RedisError, OSError) as error:
            logger.warning("could not deregister from Redis: %s", error)
        self._disconnect()
        self._leave_mail()

    def read(self, count: int) -> list[Entry]:
        """Send buffered commits, then wait up to a second for at most `count` events of each channel.

        Never raises for a lost Redis: it reconnects, backing off, and returns what it finds.
        """
        command = self._read_command(0 if self._recover else count)
        self._recover = False
        try:
            self._buffer_refused()
            reply = self._answer(command)
        except (redis.RedisError, OSError) as error:  # away, failing over, or flushed: connecting creates the cursors
            if self._is_own and isinstance(error, redis.ResponseError):
                sleep(RESEND_SECONDS)  # until a beat has created the streams; none does once the worker stops
            else:
                self._reconnect(error)
            return []
        return [entry for stream, entries in reply or () for entry in self._entries(stream, entries)]

    def _read_command(self, count: int) -> bytes:
        """Return the command that reads: what is new, or, with a count of 0, what this consumer has pending."""
        if count not in self._reads:
            options = ("COUNT", count, "BLOCK", BLOCK_MILLISECONDS) if count else ("COUNT", READ_COUNT)
            streams = (*self._streams, *([">" if count else "0"] * len(self._streams)))
            self._reads[count] = pack(("XREADGROUP", "GROUP", WORKERS, self._consumer, *options, "STREAMS", *streams))
        return self._reads[count]

    def _entries(self, stream: bytes, entries: list[Any]) -> list[Entry]:
        found = []
        for entry_id, fields in entries:
            try:
                found.append(Entry(stream, entry_id, _event_of(fields)))
            except Exception as error:  # noqa: BLE001 - nobody can run it: it must not come back for ever
                self.pass_over(stream, entry_id, error)
        return found

    def pass_over(self, stream: bytes, entry_id: bytes, error: Exception | None = None) -> None:
        """Acknowledge an event that cannot be run, and count it; error: why."""
        self._passed_over.add(stream.decode(), entry_id, error)
        self._buffer(("XACK", stream, WORKERS, entry_id))
        self._buffer(("XDEL", stream, entry_id))

    def release(self, entries: list[Entry]) -> None:
        """Let other workers run events that were read and have not started, now."""
        if entries:
            self._buffer(release_command(self.keys, entries))
            self.flush()

    def commit(self, entry: Entry, reply: LastReply, sends: Sequence[Sent], last_will: bytes = b"") -> None:
        """Buffer the commit of an event; arguments as commit_arguments has them."""
        command = ("EVALSHA", COMMIT_SHA, *commit_arguments(self.keys, entry, reply, sends, last_will))
        self._buffer(command, Commit(entry, reply))

    def send_now(self, sent: Frames | Sent) -> None:
        """Send something outside of the commit; twice, perhaps, over a cut. Raises as mail() does."""
        command = self._broadcasts.command(self.keys, sent)
        self._ask_mail(lambda: [command])

    def mail(self, reply: Want | Response | None, wait_seconds: float = 0) -> tuple[bool, list[WorkerMessage]]:
        """Send something ahead of the commit, and return whether its interface lives and which messages have come.

        Waits for the first message as long as is said. Insists while Redis is away, so it may come twice; raises
        ConnectionResetError after AWAY_SECONDS.
        """
        ahead: list[Command] = [reply_command(self.keys, reply)] if reply else []
        inbox = self.keys.inbox(self.inbox)
        block = ("BLOCK", int(wait_seconds * 1000)) if wait_seconds else ()

        def commands() -> list[Command]:
            trim = ("XTRIM", inbox, "MINID", self._mailed)
            return [*ahead, trim, ("XREAD", *block, "STREAMS", inbox, self._mailed)]

        *answers, _, streams = self._ask_mail(commands)
        messages = []
        for entry_id, fields in streams[0][1] if streams else ():
            self._mailed, self._last_message = entry_id, fields
            try:
                messages.append(decode_worker_message(fields[0], fields[1]))
            except Exception as error:  # noqa: BLE001 - what one message does wrong must not cost the body its others
                self._passed_over.add(inbox, entry_id, error)
        if self._mailed == LAST_ID:
            self._ask_mail(lambda: [renew_command(inbox)])
            self._mailed = b"0"
        return answers != [None], messages

    def _ask_mail(self, commands: Callable[[], list[Command]]) -> list[Any]:
        """Send commands; called again with each connection."""
        give_up_at = monotonic() + AWAY_SECONDS
        while True:
            try:
                if self._mail and self._mail.was_cut():
                    self._leave_mail()
                if self._mail is None:
                    self._mail = SyncConnection(self._url)
                    self._look_for_last(self._mail)
                sent = commands()
                self._mail.send(b"".join([pack(command) for command in sent]))
                return [_raised(self._mail.receive()) for _ in sent]
            except (redis.RedisError, OSError) as error:
                self._leave_mail()
                if monotonic() > give_up_at:
                    raise ConnectionResetError(f"the connection to Redis was lost: {error}") from error
            sleep(RESEND_SECONDS)

    def _look_for_last(self, mail: SyncConnection) -> None:
        """Read the inbox again where its last message is not in its place, as in reader.py (it knows repeats)."""
        mail.send(pack(("XRANGE", self.keys.inbox(self.inbox), self._mailed, self._mailed)))
        if _raised(mail.receive()) != [[self._mailed, self._last_message]]:
            self._mailed = b"0"

    def _leave_mail(self) -> None:
        if self._mail:
            self._mail.close()
        self._mail = None

    def settle(self) -> None:
        """Send what was buffered and wait for the answers; a lost connection shows at the next read."""
        try:
            self._drain(self._send())
        except (redis.RedisError, OSError):
            logger.warning("the connection to Redis was lost while sending")

    def flush(self) -> None:
        """Send what was buffered; a lost connection shows at the next read. From any thread."""
        try:
            if self._output:
                self._send()
        except OSError:
            logger.warning("the connection to Redis was lost while sending")

    def end_silence(self) -> None:
        """Cut a connection that has owed an answer for too long. By another thread, which Redis answers."""
        for connection in (self._connection, self._mail):
            if connection:
                connection.end_silence()

    def _buffer(self, command: Command, commit: Commit | None = None, refused_until: float = 0.0) -> None:
        sent = _Sent(pack(command), commit, refused_until)
        with self._sending:
            self._output.append(sent)

    def _send(self, packed: bytes = b"") -> SyncConnection:
        """Send what was buffered and then `packed`, without waiting for an answer; returns where answers come."""
        with self._sending:
            output, self._output = self._output, []
            self._unanswered += output
            if self._connection is None:
                raise ConnectionError("not connected")
            if output or packed:
                self._connection.send(b"".join([*[each.packed for each in output], packed]))
            return self._connection

    def _drain(self, connection: SyncConnection) -> None:
        """Read the answers of what was sent before."""
        while self._unanswered:
            answer = connection.receive()
            if type(answer) is hiredis.ReplyError:
                words = str(answer)
                if AWAY.match(words) or words.startswith("NOSCRIPT"):
                    self._disconnect()  # the answers behind this one are not to be taken for others
                    raise ConnectionError(words)  # connecting anew, this commit is sent again
                self._refuse(self._unanswered[0], words)
                answer = 1
            self._unanswered.pop(0)
            if isinstance(answer, int) and answer < 0:
                self.refused += 1
                logger.info("a commit came too late and was rejected (%d)", answer)

    def _refuse(self, sent: "_Sent", words: str) -> None:
        """Redis has refused a command: a commit is tried again for a while, then its event ends.

        Any other gives events up, and they would be nobody's: it is tried until it is done.
        """
        now = monotonic()
        self._again_at = now + AGAIN_SECONDS
        self._reject(REFUSED)
        is_late = 0 < sent.refused_until < now or self._refused_bytes > REFUSED_BYTES
        if sent.commit is None and is_late:
            logger.error("Redis rejected a command: %s", words)
        elif sent.commit and is_late:
            entry = sent.commit.entry
            logger.error("Redis rejected the commit of %s: %s", entry, words)
            *once, acknowledge = end_commands(self.keys, sent.commit, words)
            for command in once:
                self._buffer(command, refused_until=now)
            self._buffer(acknowledge)
        else:
            self._refused_bytes += len(sent.packed)
            until = now + REFUSED_SECONDS if sent.commit else inf
            sent.refused_until = sent.refused_until or until
            self._refused.append(sent)

    def _buffer_refused(self) -> None:
        if self._refused and monotonic() > self._again_at:
            with self._sending:
                self._output = self._refused + self._output
            self._refused, self._refused_bytes = [], 0

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _answer(self, packed: bytes) -> Any:
        connection = self._send(packed)
        self._drain(connection)
        return _raised(connection.receive())

    def _ask(self, *command: str | bytes | int) -> Any:
        return self._answer(pack(command))

    def _reconnect(self, error: Exception) -> None:
        logger.warning("Redis is unavailable: %s", error)
        began, unanswered = monotonic(), self._unanswered + self._output
        self._leave_mail()  # should it be lost too, nobody is to wait for it anew
        for attempt in itertools.count(1):
            self._unanswered, self._output = [], []
            self._disconnect()
            sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS)) - 1])
            try:
                self.connect()
                break
            except (redis.RedisError, OSError) as again:
                if attempt % 60 == 0:
                    logger.warning("Redis is still unavailable after %.0f s: %s", monotonic() - began, again)
        self._output = unanswered
        self._recover = True
        logger.warning("Redis is available again")


def _raised(answer: Any) -> Any:
    """Return an answer; raises redis-py's error for a refusal."""
    if type(answer) is hiredis.ReplyError:
        raise redis.ResponseError(str(answer))
    return answer
