"""One HTTP request on its way: hands out its body, waits for the worker's reply, writes the response.

A small body travels with the event. A larger one is pulled: nothing of it is read from the client, and no 100 Continue
is sent (RFC 9110, section 10.1.1), before the application asks. The response's parts flow under credit: a worker sends
as much as it was told may be on its way, and is told of more when the client was written to. What both sides say is
numbered and, after a cut, said again: a connection to Redis that is lost loses nothing of a body.
"""

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from msgspec.structs import replace

from asgictl.config import Limits
from asgictl.layers import flow_control
from asgictl.layers.base import Answered
from asgictl.layers.flow_control import OrderedSender
from asgictl.telemetry.access_log import Answer
from asgictl.wire.asgi import Receive, Send
from asgictl.wire.error_responses import BODY_TOO_LARGE, REDIS_REFUSED, WORKER_DIED, error_response
from asgictl.wire.messages import Chunk, Credit, Gone, Request, Response, Want, WorkerMessage, may_repeat

Post = Callable[[str, WorkerMessage, Callable[[object], None]], None]


class BodyTooLarge(Exception):
    """The client's fault: answered with 413."""


class Aborted(Exception):
    """The application failed after the response had begun; the server cuts the connection."""


class ClientGone(Exception):
    """The client left before its response; what is queued for it need not run."""


class PendingRequest:
    """What a worker's reply is handed to.

    Parts of a response come in sequence; a repeated one is dropped, and so is what comes of another attempt, or of
    another sending of the event than the one that was heard first. After a gap the response is cut off.
    deadline_seconds: until the first part of the response, and between parts of the body. deadline: infinite unless
    a worker is waited for. is_answered: the last part has come.
    """

    pool = ""
    is_answered = False

    def __init__(
        self,
        event: Request,
        receive: Receive,
        post: Post,
        body_limit: int,
        deadline_seconds: float,
        loop: asyncio.AbstractEventLoop,  # asking for it is a system call before Python 3.12
    ) -> None:
        self.event = event
        self.answer = Answer()
        self.deadline = float("inf")  # by the event loop's clock
        self._deadline_seconds = deadline_seconds
        self._receive = receive
        self._post = post
        self._body_limit = body_limit
        self._parts: deque[Response] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._loop = loop
        self._next = 0
        self._owner = ""  # the inbox of the worker that was heard, and the entry that it runs
        self._entry = b""
        self._sender: OrderedSender[Chunk | Credit] | None = None  # to it
        self._wants = 0  # how often it has asked
        self._wanted = flow_control.Credit(0)  # of the request's body
        self._wanting: asyncio.Event | None = None
        self._window = flow_control.Window(event.credit, 4, is_granted=True)  # of the response's body
        self._reader: asyncio.Task[None] | None = None
        self._is_gone = False

    @property
    def repeatable(self) -> bool:
        """Whether it may run again although it may have run: once, with nothing read of its body, nor answered."""
        event = self.event
        return may_repeat(event) and event.attempt == 1 and not (self._next or event.more)

    def begin(self, body: bytes, more: bool) -> Request:
        """What can be read now of the body was read; returns the event, to be sent. The deadline begins."""
        if body or more:
            self.event = replace(self.event, body=body, more=more)
        self._postpone()
        return self.event

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
        self._next += 1
        self.is_answered = not part.more
        self.deadline = float("inf")
        self._parts.append(part)
        self._wake()
        return None

    def want(self, want: Want) -> None:
        """The worker asks for more of the request's body; the first that asks is the one that gets it."""
        if want.attempt != self.event.attempt or self._entry not in (b"", want.entry) or self._is_gone:
            self._post(want.inbox, Gone(want.connection, want.entry), _ignored)
            return
        if want.sequence <= self._wants:
            return  # sent again after a cut
        self._entry, self._owner, self._wants = want.entry, want.inbox, want.sequence
        self._wanted.grant(want.size)
        if self._wanting:
            self._wanting.set()
        self.listen()

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

    def listen(self) -> None:
        """Read what the client sends: the rest of the body, one message ahead of what is wanted, then its leaving."""
        if self._reader is None:
            self._reader = self._loop.create_task(self._read())

    async def write(self, send: Send) -> None:
        """Write the response out, part by part; raises ClientGone, or Aborted when the application failed."""
        try:
            answer, part = self.answer, await self._get()
            answer.begin(part.status)
            answer.run_seconds, answer.worker = part.run_seconds, part.worker
            await send({"type": "http.response.start", "status": part.status, "headers": part.headers})
            while part.more:
                self.listen()  # a server need not raise when it writes to a client that has left
                answer.bytes += len(part.body)
                await send({"type": "http.response.body", "body": part.body, "more_body": True})
                self._acknowledge(len(part.body))
                part = await self._get()
            if part.aborted:
                raise Aborted
            answer.bytes += len(part.body)
            await send({"type": "http.response.body", "body": part.body})
        except OSError:  # how a server may say that the client has left (ASGI, HTTP: disconnected client)
            self._tell_gone()
            raise ClientGone from None
        finally:
            if self._reader:
                self._reader.cancel()

    async def _get(self) -> Response:
        while not self._parts:
            if self._is_gone:
                raise ClientGone
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._parts.popleft()

    def _postpone(self) -> None:
        self.deadline = self._loop.time() + self._deadline_seconds

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _acknowledge(self, size: int) -> None:
        """Tell the worker in quarters of what it may have on its way, so that it never runs dry unheard."""
        self._window.take(size)
        if self._owner and (due := self._window.due()):
            sender = self._to_worker()
            sender.send(Credit(self.event.connection, self._entry, due, sender.next_sequence()))

    def _to_worker(self) -> OrderedSender[Chunk | Credit]:
        def add(letter: Chunk | Credit, answered: Answered) -> None:
            self._post(self._owner, letter, answered)

        self._sender = self._sender or OrderedSender(add, self._unheard)
        return self._sender

    def _unheard(self) -> None:
        """The worker is no more, or Redis has lost its inbox."""
        if not self.is_answered:
            self.fail(502, "A part of this request's body was lost.")

    async def _read(self) -> None:
        received = 0
        more = self.event.more
        while (message := await self._receive())["type"] == "http.request":
            if not more:
                continue  # an empty body has a message too
            data, more = message.get("body", b""), message.get("more_body", False)
            while data and self._wanted.is_spent:
                self._wanting = asyncio.Event()
                await self._wanting.wait()
            received += len(data)
            if received > self._body_limit:
                return self.fail(413, BODY_TOO_LARGE.format(self._body_limit))
            self._wanted.spend(len(data))
            if self._next == 0:
                self._postpone()
            sender = self._to_worker()
            sender.send(Chunk(self.event.connection, self._entry, sender.next_sequence(), data, more))
        self._is_gone = True
        self._tell_gone()
        self._wake()
        return None

    def _tell_gone(self) -> None:
        if self._owner:
            self._post(self._owner, Gone(self.event.connection, self._entry), _ignored)


def _ignored(_reply: object) -> None:
    """For letters that hasten or spare work: their worker has a deadline of its own."""


async def read_body(scope: MutableMapping[str, Any], receive: Receive, limits: Limits) -> tuple[bytes, bool]:
    """Return a small body, and whether there is one that is to be pulled instead.

    Raises BodyTooLarge for a Content-Length above the limit, ClientGone, and TimeoutError when the body does not come.
    """
    length, expects = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = -1
        elif name == b"expect":
            expects = True
    if not length:
        return b"", False  # RFC 9112, section 6.3: neither header, no body
    if length > limits.body_bytes:
        raise BodyTooLarge
    if length < 0 or length > limits.inline_bytes or expects:
        return b"", True
    parts = []
    async with asyncio.timeout(limits.http_deadline_seconds):
        while (message := await receive())["type"] == "http.request":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts), False
    raise ClientGone
