"""The channel layer of a server that runs the application itself: local events, shared sends.

Events and replies stay in this process's memory. Group messages and jobs go by Redis where other processes are to hear
them; what is sent then is not one step with its turn's reply.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter

from asgictl.app.application import Application
from asgictl.app.run import RunningTurn
from asgictl.layers.base import Answered, OnBroadcast, OnItsWay, OnReply, Position
from asgictl.layers.memory import Added, Memory, MemoryEventLayer, about
from asgictl.layers.redis.interface_side import RedisGroupLayer
from asgictl.layers.redis.started import Begun
from asgictl.machine import forks
from asgictl.telemetry.metrics import Figures
from asgictl.wire.messages import (
    Done,
    Event,
    Frames,
    Reply,
    Request,
    Response,
    Sent,
    Turn,
    TurnEvent,
    decode_scope,
    is_error,
)
from asgictl.wire.naming import name_of

LOOK_SECONDS = 0.001  # that an event waits for a thread that is awake


class LocalMemory(Memory):
    """What the event loop and its threads share.

    An event wakes a thread when all of them wait. Else one that is awake takes it, if its handler is fast: several
    threads that are awake at once spend more on the GIL than fast handlers do. Should nobody take it, another is woken.

    share: sends to other processes too, from any thread; None where there are none. threads: how many there are.
    """

    share: Callable[[Sent], object] | None = None
    threads = 0

    loop: asyncio.AbstractEventLoop  # from start() on
    _is_looking = False

    def wake_one(self, stream: bytes) -> None:
        if len(self.waiting) >= self.threads:
            super().wake_one(stream)
        elif not self._is_looking:
            self._is_looking = True
            self.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        with self.lock:
            self._is_looking = False
            for stream in self.free():
                super().wake_one(stream)
                self.wake_one(stream)

    def send(self, sent: Sent) -> None:
        if self.share:
            self.share(sent)
        else:
            super().send(sent)


class LocalLayer(MemoryEventLayer):
    """A forwarder's side. Turns of `async def` consumers run on its own loop, all else in threads that read the memory.

    shared: carries what is sent; None leaves it in memory. begun: is told what runs. figures: count what ran here.
    """

    def __init__(
        self,
        application: Application,
        memory: LocalMemory,
        shared: RedisGroupLayer | None,
        begun: Begun,
        figures: Figures,
        interface: str,
        on_reply: OnReply,
        on_broadcast: OnBroadcast,
    ) -> None:
        super().__init__(memory, interface, self._heard, on_broadcast)
        self._local = memory
        self._application = application
        self._has_async = any(route.async_kinds for route in application.routes)
        self._shared = shared
        self._begun = begun
        self._figures = figures
        self._forwarder = on_reply
        self._noted: dict[str, int] = {}  # by connection, what is begun
        self._turns: dict[
            asyncio.Task[None], tuple[float, Callable[[], str]]
        ] = {}  # which the loop alone would not keep alive

    @property
    def running(self) -> int:
        """How many turns run on the loop."""
        return len(self._turns)

    def began(self) -> list[tuple[float, Callable[[], str]]]:
        """Return of each of these when it began, and what names it. From any thread."""
        return list(self._turns.values())

    @property
    def silent_seconds(self) -> float:  # type: ignore[override]
        """How long ago Redis last answered; 0 without one."""
        return self._shared.silent_seconds if self._shared else 0.0

    async def start(self) -> None:
        await super().start()
        self._local.loop = asyncio.get_running_loop()
        if shared := self._shared:
            await shared.start()
            self._local.share = lambda sent: self._local.loop.call_soon_threadsafe(shared.publish, sent)

    async def stop(self) -> None:
        if self._shared:
            await self._shared.stop()
        await super().stop()

    def append(
        self, channel: str, event: Event, answered: Answered, *, repeatable: bool, is_own: bool = False
    ) -> OnItsWay:
        if isinstance(event, Request):
            if self._begun.is_noting:
                self._noted[event.connection] = self._begun.begin(event.scope.method, event.scope.path)
        elif isinstance(event, Turn):
            turn = RunningTurn(self._application, event, self._send_now) if self._has_async else None
            if self._begun.is_noting:
                scope = turn.scope if turn else decode_scope(event.scope)
                self._noted[event.connection] = self._begun.begin(event.channel, scope.path)
            if turn and turn.is_async:
                self._begin(turn, event)  # what stands in no stream has no entry to be answered with
                return Added(about(event))
        return super().append(channel, event, answered, repeatable=repeatable, is_own=is_own)

    def forget(self, connection: str) -> None:
        super().forget(connection)
        self._begun.end(self._noted.pop(connection, 0))

    def audit(self, channel: str, event: Event, entry: bytes, gone: Callable[[], None]) -> None:
        """Nothing is lost without this process."""

    def _begin(self, turn: RunningTurn, event: TurnEvent) -> None:
        task = self._local.loop.create_task(self._run(turn))
        self._turns[task] = perf_counter(), partial(name_of, event)
        task.add_done_callback(self._turns.pop)

    async def _run(self, turn: RunningTurn) -> None:
        done = await turn.run_async()
        self._figures.events += 1
        self._figures.errors += is_error(done)
        self._heard(done, self._memory.position() if done.joins else None)
        for sent in turn.outcome.sends:
            self._memory.send(sent)

    def _send_now(self, sent: Frames | Sent) -> None:
        """For immediately=True, on the event loop or in a thread that sync_to_async runs."""
        forks.check()
        if isinstance(sent, Frames):
            self.hear_reply(sent, None)
        else:
            self._memory.send(sent)

    def _heard(self, reply: Reply, position: Position | None) -> None:
        if isinstance(reply, Done) or (isinstance(reply, Response) and not reply.more):
            self._begun.end(self._noted.pop(reply.connection, 0))
        self._forwarder(reply, position)
