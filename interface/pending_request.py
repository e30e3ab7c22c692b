"""One HTTP request: sends its body to the worker that asks for it, and the worker's response to the client.

A small body travels with the event. A larger one is pulled: nothing of it is read from the client, and no 100 Continue
is sent (RFC 9110, section 10.1.1), before the application asks. The response's parts flow under credit: a worker sends
as much as it was granted, and is granted more when the client has taken what was written. What both sides say is
numbered and, after a cut, said again: a connection to Redis that is lost loses nothing of a body.
"""

import asyncio
from collections.abc import Callable
from math import inf

from msgspec.structs import replace

from asgictl.interface.affinity import Route
from asgictl.interface.edge import ClientRequest
from asgictl.layers import flow_control
from asgictl.layers.base import Answered
from asgictl.layers.flow_control import OrderedSender
from asgictl.telemetry.access_log import Answer
from asgictl.telemetry.metrics import CLIENT_GONE
from asgictl.wire.error_responses import BODY_TOO_LARGE, REDIS_REFUSED, WORKER_DIED, error_response
from asgictl.wire.messages import Chunk, Credit, Gone, Request, Response, Want, WorkerMessage, may_repeat

Post = Callable[[str, WorkerMessage, Callable[[object], None]], None]


class PendingRequest:
    """What a worker's reply is handed to.

    Parts of a response come in sequence; a repeated one is dropped, and so is what comes of another attempt, or of
    another sending of the event than the one that was heard first. After a gap the response is cut off.
    deadline_seconds: until the first part of the response, and between parts of the body. deadline: infinite unless
    it is waited for. is_answered: the last part has come. is_gone: the client has left before that. waits_for_body: the
    client is waited for, not a worker.
    ended: called once the response is written, or the client has left.
    """

    pool = ""
    route: Route | None = None
    is_answered: bool = False
    is_gone: bool = False
    waits_for_body: bool = False
    _owner = ""  # the inbox of the worker that was heard, and the entry that it runs
    _entry = b""
    _sender: OrderedSender[Chunk | Credit] | None = None  # to it
    _wants = 0  # how often it has asked
    _wanted: flow_control.Credit | None = None  # of the request's body
    _received = 0  # bytes of it
    _window: flow_control.Window | None = None  # of the response's body
    _untaken = 0  # bytes of it that the client has not taken yet

    def __init__(
        self,
        event: Request,
        client: ClientRequest,
        post: Post,
        ended: Callable[["PendingRequest"], None],
        body_limit: int,
        deadline_seconds: float,
        loop: asyncio.AbstractEventLoop,  # asking for it is a system call before Python 3.12
    ) -> None:
        self.event: Request = event
        self.answer: Answer = Answer()
        self.deadline: float = loop.time() + deadline_seconds
        self._client = client
        self._deadline_seconds = deadline_seconds
        self._post = post
        self._has_ended = ended
        self._body_limit = body_limit
        self._loop = loop
        self._next = 0

    @property
    def repeatable(self) -> bool:
        """Whether it may run again although it may have run: once, with nothing read of its body, nor answered."""
        event = self.event
        return may_repeat(event) and event.attempt == 1 and not (self._next or event.more)

    def put(self, part: Response) -> None:
        """Take the next part of the response."""
        if part.sequence < self._next or part.attempt != self.event.attempt or self._entry not in (b"", part.entry):
            if part.inbox and part.entry != self._entry:
                self._post(part.inbox, Gone(part.connection, part.entry), _ignored)
            return None
        if part.sequence > self._next:
            return self.fail(502, "A part of this response was lost.")
        self._entry = part.entry
        self._owner = part.inbox
        if part.home:
            self._client.home = part.home
        self._next += 1
        self.is_answered = not part.more
        self.deadline = inf
        return self._write(part)

    def _write(self, part: Response) -> None:
        answer, client, size = self.answer, self._client, len(part.body)
        if part.sequence == 0:
            answer.begin(part.status)
            answer.run_seconds, answer.worker, answer.bytes = part.run_seconds, part.worker, size
            client.respond(part.status, part.headers, part.body, part.more)
        elif part.aborted:
            client.abort()
        else:
            answer.bytes += size
            client.write(part.body, part.more)
        self._untaken += size
        if self.is_answered:
            self._has_ended(self)
        elif not client.is_paused:
            self.resumed()

    def resumed(self) -> None:
        """The client has taken what was written: grant the worker more, in quarters of what may be on its way."""
        self._window = self._window or flow_control.Window(self.event.credit, 4, is_granted=True)
        self._window.take(self._untaken)
        self._untaken = 0
        if self._owner and (due := self._window.due()):
            sender = self._to_worker()
            sender.send(Credit(self.event.connection, self._entry, due, sender.next_sequence()))

    def want(self, want: Want) -> None:
        """The worker asks for more of the request's body; the first that asks is the one that gets it."""
        if want.attempt != self.event.attempt or self._entry not in (b"", want.entry) or self.is_gone:
            self._post(want.inbox, Gone(want.connection, want.entry), _ignored)
            return
        if want.sequence <= self._wants:
            return  # sent again after a cut
        self._entry, self._owner, self._wants = want.entry, want.inbox, want.sequence
        self._wanted = self._wanted or flow_control.Credit(0)
        self._wanted.grant(want.size)
        if not self._wanted.is_spent:
            self._read_on()

    def _read_on(self) -> None:
        self.waits_for_body = True
        if self._next == 0:
            self.deadline = self._loop.time() + self._deadline_seconds
        self._client.want()

    def received(self, data: bytes, more: bool) -> None:
        """Send a part of the body on to the worker."""
        self.waits_for_body = False
        self._received += len(data)
        if self._received > self._body_limit:
            self.fail(413, BODY_TOO_LARGE.format(self._body_limit))
            return
        assert self._wanted is not None  # noqa: S101 - it was asked for
        self._wanted.spend(len(data))
        if self._next == 0:
            self.deadline = self._loop.time() + self._deadline_seconds
        sender = self._to_worker()
        sender.send(Chunk(self.event.connection, self._entry, sender.next_sequence(), data, more))
        if more and not self._wanted.is_spent:
            self._read_on()

    def gone(self) -> None:
        """The client has left; what is in flight for it need not run."""
        self._tell_gone()
        self.is_gone = True
        self.answer.status = self.answer.status or CLIENT_GONE
        self._has_ended(self)

    def fail(self, status: int, text: str) -> None:
        """Answer in the application's stead, and let it know; an answer that has begun is cut off instead."""
        self._tell_gone()
        response = error_response(self.event.connection, status, text)
        attempt, begun = self.event.attempt, self._next > 0
        self.put(replace(response, sequence=self._next, aborted=begun, attempt=attempt, entry=self._entry))

    def lost(self, started: bool) -> Request | None:
        """The worker died. A request that it had not started is sent again; one that it had, only if repeatable."""
        if self._next == 0 and (not started or self.repeatable):
            self.event = replace(self.event, attempt=self.event.attempt + started)
            self._entry, self._owner, self._sender, self._wants = b"", "", None, 0
            return self.event
        self.fail(502, WORKER_DIED)
        return None

    def refused(self, for_good: bool) -> bool:
        """Redis has not taken the event; should an earlier sending of it have been heard, that one goes on."""
        if self._next and not for_good:
            return True
        self.fail(503, REDIS_REFUSED)
        return False

    def _to_worker(self) -> OrderedSender[Chunk | Credit]:
        def add(message: Chunk | Credit, answered: Answered) -> None:
            self._post(self._owner, message, answered)

        self._sender = self._sender or OrderedSender(add, self._unheard)
        return self._sender

    def _unheard(self) -> None:
        """The worker is no more, or Redis has lost its inbox."""
        if not (self.is_answered or self.is_gone):
            self.fail(502, "A part of this request's body was lost.")

    def _tell_gone(self) -> None:
        if self._owner:
            self._post(self._owner, Gone(self.event.connection, self._entry), _ignored)


def _ignored(_reply: object) -> None:
    """For messages that hasten or spare work: their worker has a deadline of its own."""
