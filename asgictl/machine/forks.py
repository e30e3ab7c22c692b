"""What a process keeps from the children that an application's handlers fork.

A fork shares every open file. A child that goes on where its handler was would answer its parent's clients, keep their
connections and its listener open after it, and read what Redis tells it. So in a child each descriptor of ours
leads to /dev/null under its old number, which no new file can take, and the child ends when its handler is over:

- a worker's own thread ends it once the handler has returned (`end_child`);
- an executor's thread would wait for the next handler for ever: that one ends the process;
- an event loop would go on with the handlers of others: the process ends with the step of the task that forked.

What belongs to the application, such as pipes and connections to its database, stays. What multiprocessing forks never
comes back here, and only holds nothing. A program that is started (exec) keeps nothing either: our files close with it.
"""

import asyncio
import os
import signal
import socket
import stat
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

DESCRIPTORS = "/dev/fd"  # of this process, on every POSIX system
STOPPING = (signal.SIGTERM, signal.SIGINT)


class Forked(RuntimeError):
    """A forked child has used what its parent holds: it has no connection."""

    def __init__(self) -> None:
        super().__init__("a forked child of a handler has no connection to Redis: send before you fork")


class Holder(Protocol):
    """Whatever has an open file, or -1; a socket, for one."""

    def fileno(self) -> int: ...


class Address(NamedTuple):
    """Where a listener accepts: a port, on whichever address, or the path of a Unix socket."""

    family: int
    name: Any


class _Step(NamedTuple):
    """Of an event loop, that forks."""

    loop: asyncio.AbstractEventLoop
    frame: FrameType | None  # of the task's own coroutine; a mere callback has none


is_child: bool = False  # a plain global: getpid() is a system call
_null = -1
_held: WeakSet[Holder] = WeakSet()
_addresses: set[Address] = set()
_forking = threading.local()


def guard() -> None:
    """Have children that are forked from now on hold nothing of ours. Called where handlers run, and not before."""
    global _null
    if _null < 0:
        _null = os.open(os.devnull, os.O_RDWR)  # open already in a child, which may have no room for another
        os.register_at_fork(before=_about_to_fork, after_in_parent=_has_forked, after_in_child=_enter_child)


def hold(holder: Holder) -> None:
    """Keep this one's open file from children, for as long as it lives."""
    _held.add(holder)


def hold_listener(listener: socket.socket) -> None:
    """Keep this listener from children, its duplicates and every connection accepted on it, by whichever server."""
    _addresses.add(_address(listener))


def hold_connection(connection: Any) -> None:
    """Greet Redis, as redis-py's `redis_connect_func`, within a time, and keep this connection from children."""
    opened = connection._sock  # redis-py has no public name for it
    opened.settimeout(connection.socket_connect_timeout)
    connection.on_connect()
    opened.settimeout(connection.socket_timeout)
    hold(opened)


def check() -> None:
    """Raise Forked in a child: it must not connect again as its parent."""
    if is_child:
        raise Forked


def end_child() -> None:
    """End this process if it is a child, whose handler is over: without exit handlers, which are its parent's."""
    if is_child:
        os._exit(0)


def take_listener(descriptor: int) -> socket.socket:
    """Return a listener that this process was started with, out of reach of programs that it starts itself."""
    listener = socket.socket(fileno=os.dup(descriptor))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
    return listener


def _about_to_fork() -> None:
    loop = asyncio._get_running_loop()  # which a child would not find any more
    task = asyncio.current_task(loop) if loop else None
    _forking.step = _Step(loop, getattr(task and task.get_coro(), "cr_frame", None)) if loop else None


def _has_forked() -> None:
    _forking.step = None


def _enter_child() -> None:
    global is_child
    is_child = True
    # A signal to the child would be written into the parent's own pipe, and be taken for one to the parent.
    signal.set_wakeup_fd(-1)
    for number in STOPPING:
        if callable(signal.getsignal(number)):  # ours: it would set an event that nobody waits for
            signal.signal(number, signal.SIG_DFL)
    try:
        for descriptor in _descriptors():
            os.dup2(_null, descriptor, inheritable=False)
    except OSError:  # it may have no more files; what is unguarded must not go on
        os._exit(1)
    if step := _forking.step:
        step.loop.call_soon(os._exit, 0)
        if step.frame:
            sys.setprofile(_Watch(step.frame))
    else:
        _end_with_executor(sys._getframe())


def _descriptors() -> set[int]:
    """Return those of ours that are open."""
    found = {holder.fileno() for holder in _held}
    if _addresses:
        found |= {each for name in os.listdir(DESCRIPTORS) if _is_of_listener(each := int(name))}
    return found - {-1}


def _is_of_listener(descriptor: int) -> bool:
    """Whether this is a listener's socket, or that of a connection which was accepted there."""
    with suppress(OSError):  # such as the one that lists the directory
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            found = socket.socket(fileno=descriptor)
            try:
                return found.type == socket.SOCK_STREAM and _address(found) in _addresses
            finally:
                found.detach()
    return False


def _address(of: socket.socket) -> Address:
    name = of.getsockname()
    return Address(of.family, name[1] if isinstance(name, tuple) else name)


class _Watch:
    """Ends a child with the step of the task that forked; a profiler sees a frame's return, as at an `await`."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "return" and frame is self._frame:
            os._exit(0)
        if frame.f_code.co_qualname == "BaseProcess._bootstrap":  # multiprocessing's: it never comes back here
            sys.setprofile(None)


class _Last:
    """What an executor's thread runs next."""

    def run(self, *_: object) -> None:
        os._exit(0)


def _end_with_executor(frame: FrameType | None) -> None:
    """Where an executor's thread has forked, have it end the process instead of running what others have queued."""
    while frame is not None:
        name = frame.f_globals.get("__name__"), frame.f_code.co_qualname
        if name == ("concurrent.futures.thread", "_worker"):
            _fill(frame.f_locals["work_queue"], _Last())
        elif name == ("anyio._backends._asyncio", "WorkerThread.run"):  # such as Starlette's
            _fill(frame.f_locals["self"].queue, None)
        frame = frame.f_back


def _fill(queue: Any, last: _Last | None) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put(last)
