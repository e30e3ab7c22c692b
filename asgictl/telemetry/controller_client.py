"""How a process tells the controller that it is ready, or why it never will be.

One line of JSON on the controller's Unix socket, which then stays open for as long as the process lives: the kernel
closes it when the process ends, however it ends. Once a second the process's figures follow, from a thread that waits
for nothing else: who is silent stands still, or runs C code that holds the GIL, and is ended by the controller
(silence.py).

A worker that nobody supervises has nobody to tell, and ends itself: faulthandler's watchdog needs no GIL. An interface
runs no code that could hold it, and deregisters clients when it stood still. Where there is a controller the
watchdog only writes the stacks of a process that is about to be ended.
"""

import atexit
import contextlib
import faulthandler
import json
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asgictl.errors import AsgictlError
from asgictl.machine.run_dir import has_own_redis
from asgictl.telemetry.metrics import Figures
from asgictl.telemetry.process_record import Recorder

logger = logging.getLogger("asgictl.readiness")
SOCKET = "controller.sock"
ROLES = {"interface", "worker", "server"}
RECONNECT_SECONDS = 0.5
PUSH_SECONDS = 1.0
LOG_SECONDS = 0.5  # before its end, that a silent process has for its stacks
STDERR = 2
ASK_SECONDS = 2.0


def ask(run_dir: Path, question: str, processes: Sequence[str] = ()) -> Any:
    """Return the controller's answer: "reports" or "status". Raises OSError while it is away.

    "forget": how those that ran in these slots before have failed; then it is the reports.
    """
    with asking(run_dir, question, processes) as answer:
        return answer


@contextlib.contextmanager
def asking(run_dir: Path, question: str, processes: Sequence[str] = ()) -> Iterator[Any]:
    """Ask as ask() does, and hold the line open meanwhile. "stopping": the instance is not ready for so long."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, line.makefile("rb") as answer:
        line.settimeout(ASK_SECONDS)
        line.connect(str(run_dir / SOCKET))
        line.sendall(json.dumps({"ask": question} | ({"processes": processes} if processes else {})).encode() + b"\n")
        if not (text := answer.readline()).endswith(b"\n"):
            raise ConnectionResetError("the controller ended while it answered")
        yield json.loads(text)


class Readiness:
    """This process's line to the controller. run_dir: None when the process runs alone.

    silent_seconds: for which nothing may come from here once it is ready; 0 for ever. alone: called once it is ready,
    with what a controller would be told, where there is none.
    """

    def __init__(
        self,
        run_dir: Path | None,
        role: str,
        process: str,
        silent_seconds: float = 0.0,
        alone: Callable[[dict[str, Any]], object] = dict,
    ) -> None:
        self._alone = alone
        self.run_dir = run_dir
        self._silent_seconds = silent_seconds if run_dir or role != "interface" else 0.0
        self._arming = threading.Lock()
        self._is_armed = False
        self._who = {"role": role, "process": process}
        self._ready: dict[str, Any] = {}  # what is reported of a process that is ready
        self._sending = threading.Lock()  # a line is whole
        self._socket: socket.socket | None = None
        self._figures = Figures()
        self._count: Callable[[], Figures] = Figures
        self._recorder = Recorder()
        self._is_seen = run_dir is None or not has_own_redis(run_dir)  # from other hosts
        # A child that the application forks must not keep the line open after this process has died.
        os.register_at_fork(after_in_child=self._close)

    def starting(self) -> None:
        """Open the line: should it close before ready() or failed(), this process has died while it started."""
        self._report({"state": "starting"})

    def ready(self, figures: Callable[[], Figures] = Figures, **detail: object) -> None:
        """Report that this process serves from now on, and again to every controller that replaces this one.

        figures: called each second, from a thread of ours. detail goes into `asgictl status`.
        """
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._ready, self._count = {"state": "ready", "file_limit": files, **detail}, figures
        self._report(self._ready)
        if self.run_dir is None:
            self._alone(self._ready)
        if self._silent_seconds:
            self._is_armed = True
            # A child that inherits the watchdog's locks without its thread could never end in order.
            os.register_at_fork(before=self._disarm, after_in_parent=self._rearm, after_in_child=self._leave_to_parent)
            atexit.register(self._finish)
            self._arm()  # now: the thread may never run, where code holds the GIL at once
        if self.run_dir is not None or self._silent_seconds:
            threading.Thread(target=self._keep, name="readiness", daemon=True).start()

    def amend(self, **detail: object) -> None:
        """Report other details than ready() did, now and to every controller that replaces this one."""
        self._ready = {**self._ready, **detail}
        self._report(self._ready)

    def failed(self, error: AsgictlError) -> None:
        """Report that this process cannot serve, and with which status it will exit."""
        self._report({"state": "failed", "reason": str(error), "exit_code": error.exit_code})

    @property
    def report(self) -> dict[str, Any]:
        """What a controller would be told of this process now."""
        return {**self._who, "pid": os.getpid(), **(self._ready or {"state": "starting"})}

    def counted(self) -> Figures:
        """Count. A fault of ours there must not make this process silent."""
        try:
            self._figures = self._count()
        except Exception:
            logger.exception("could not count the metrics of this process")
        return self._figures

    def record(self) -> bytes:
        """Return what Redis is to have of this process, each second anew; nothing where no other host asks it."""
        return self._recorder.record(self.report, self.counted()) if self._is_seen else b""

    def _report(self, report: dict[str, Any]) -> None:
        """Send a line. A controller that is away hears of it later, or is told of nothing worse than before."""
        if self.run_dir is None:
            return
        with self._sending:
            self._say(self.run_dir, report)

    def _say(self, run_dir: Path, report: dict[str, Any]) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(PUSH_SECONDS)
                self._socket.connect(str(run_dir / SOCKET))
            line = {**self._who, "pid": os.getpid(), **report}
            self._socket.sendall(json.dumps(line).encode() + b"\n")
        except OSError as error:
            logger.warning("could not reach the controller: %s", error)
            self._close()

    def _keep(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # reset counts as closed
                while self._socket is not None:
                    self._arm()
                    self._push(self._socket, self.counted())
            self._close()
            self._arm()
            time.sleep(RECONNECT_SECONDS)
            self._report(self._ready)

    def _push(self, line: socket.socket, figures: Figures) -> None:
        """Say what was counted, then wait for the next time. Raises OSError when the controller has ended."""
        figures.cpu_seconds = time.process_time()
        # One that stands still reads no more, and would take a closed line for a death: what finds no room is lost.
        with contextlib.suppress(TimeoutError):
            with self._sending:
                line.sendall(b'{"figures":%b}\n' % msgspec.json.encode(figures))
            # All push at one moment, so that the controller wakes once.
            line.settimeout(PUSH_SECONDS - time.monotonic() % PUSH_SECONDS)
            if not line.recv(1):  # it says nothing; it ends
                raise ConnectionResetError

    def _arm(self) -> None:
        """Have the watchdog act unless this is called again in time: end a process that is alone, with its stacks."""
        with self._arming:
            if self._is_armed:
                is_alone = self.run_dir is None
                seconds = self._silent_seconds - (0 if is_alone else LOG_SECONDS)
                faulthandler.dump_traceback_later(seconds, exit=is_alone, file=STDERR)

    def _disarm(self) -> None:
        self._arming.acquire()
        faulthandler.cancel_dump_traceback_later()

    def _rearm(self) -> None:
        self._arming.release()
        self._arm()

    def _leave_to_parent(self) -> None:
        self._is_armed = False
        self._arming.release()

    def _finish(self) -> None:
        """Report the last counts. What the end takes is the supervisor's affair."""
        with self._arming:
            self._is_armed = False
            faulthandler.cancel_dump_traceback_later()
        if self._socket is not None:  # else a child's, or nobody hears
            self._report({"state": "ending", "figures": msgspec.to_builtins(self.counted())})

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
