"""One instance on this machine: starts it, watches it become ready, says how it is, stops it.

Everything that an instance leaves on the machine stands in its run directory, which goes when it stops. What runs is
found without it, too: a cleaner of /tmp may have removed it.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from asgictl.app import release
from asgictl.config import Bind, InstanceConfig
from asgictl.control.deploys import described_of, start_role
from asgictl.control.description import describe, roles, stop_seconds
from asgictl.control.log_tail import tail
from asgictl.control.preflight import check_files, ended, find_redis_server, has_background, start_python
from asgictl.control.remains import Remains, await_free, not_running
from asgictl.control.slots import POLL_SECONDS, Interrupted, Slots
from asgictl.control.status import status
from asgictl.control.supervisord_client import Supervisor
from asgictl.errors import AlreadyRunning, AsgictlError, NotRunning, RunDirectoryError, StartError, SupervisordDied
from asgictl.interface.hosting import check_server
from asgictl.layers.redis.check import check_redis
from asgictl.machine import processes
from asgictl.machine.processes import BACK_SECONDS, CHILDREN_SECONDS, FRONT_SECONDS, asked, is_alive, is_in_front
from asgictl.machine.run_dir import DESCRIPTION, RunDir, named, redis_url_of
from asgictl.telemetry.controller_client import asking

CONFIGURATION = Path(__file__).with_name("supervisor.conf")
END_SECONDS = 1.0  # that a supervisord which is gone has to have ended
RUNNING = (
    "instance {0!r} is already running: asgictl reload{1} deploys new code, asgictl stop{1} ends it; "
    "else give another --name"
)


class Instance:
    """The instance of this name. stopping: set by whoever wants a start to be given up.

    orphans: how many processes a start has ended that a killed supervisord had left.
    Raises RunDirectoryError when its run directory cannot be trusted; nothing was touched then.
    """

    orphans: int = 0

    def __init__(self, name: str, stopping: threading.Event | None = None) -> None:
        self.run_dir: RunDir = RunDir.of(name)
        self._name = name
        self._stopping = stopping or threading.Event()
        self._supervisor = Supervisor(self.run_dir.path)
        self._slots = Slots(self.run_dir.path, self._stopping)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: InstanceConfig) -> None:
        """Start everything and return once all of it is ready; on any error nothing is left running.

        What a killed supervisord has left serves on until all is known that can be known before the new starts: should
        that be an error, the old goes on.
        Raises AlreadyRunning, AddressError, RedisError, StartError, RunDirectoryError, or what a process said before it
        gave up.
        """
        is_new, remains = self.run_dir.create(), None
        if not self.run_dir.lock() or not self.run_dir.exists:  # another start, or a stop that is about to remove it
            raise AlreadyRunning(RUNNING.format(self._name, named(self._name)))
        try:
            remains = self._remains()
            config = self._check(config, remains)
        except BaseException:
            if is_new or (remains is not None and not remains.processes):
                self.run_dir.remove()
            raise
        try:
            self._end(config, remains)
            self._launch(config)
        except BaseException as error:
            self._abandon(error)
            raise

    def stop(self, *, delays: bool = True) -> int:
        """Drain and stop everything, and end what handlers have started; returns how many processes had to be killed.

        delays: whether it serves on for --shutdown-delay before. Raises NotRunning.
        """
        bind = Remains(self.run_dir.path).bind  # its description may have been removed
        try:
            with self._unready(delays):
                in_time, killed = self._shut_down()
            killed += processes.end(Remains(self.run_dir.path).processes, 0.0, CHILDREN_SECONDS if in_time else 0.0)
        except NotRunning:
            remains = Remains(self.run_dir.path)
            if not remains:
                raise not_running(self._name, self.run_dir.path) from None
            killed = remains.end()
        self.clean(bind)
        return killed

    @contextlib.contextmanager
    def _unready(self, delays: bool) -> Iterator[None]:
        """Have the instance not ready any more, and serve on for --shutdown-delay."""
        seconds = 0.0
        with contextlib.ExitStack() as line:
            with contextlib.suppress(NotRunning):
                seconds = self.described().get("shutdown_delay", 0.0) if delays else 0.0
            if seconds:
                with contextlib.suppress(OSError):  # the controller is away, and nobody is told that it is ready
                    line.enter_context(asking(self.run_dir.path, "stopping"))
                time.sleep(seconds)
            yield

    def _shut_down(self) -> tuple[bool, int]:
        """Have supervisord stop everything; returns whether it did so in time, and how many servers were killed.

        Raises NotRunning when it does not answer.
        """
        if not self._supervisor.answers():
            raise NotRunning("supervisord does not answer")
        pid, drain_seconds, killed = self._supervisor.pid(), self._drain_seconds(), 0
        self._supervisor.shutdown()
        front_at = time.monotonic() + FRONT_SECONDS
        deadline = front_at + BACK_SECONDS + drain_seconds
        while self._alive(pid):
            if (now := time.monotonic()) > deadline:
                return False, killed
            if now > front_at:  # what comes behind needs its time too
                front_at = math.inf
                killed = processes.kill([each for each in Remains(self.run_dir.path).processes if is_in_front(each)])
            with contextlib.suppress(NotRunning):
                self._supervisor.answers()  # else it looks only once a second whether a group has stopped
            time.sleep(POLL_SECONDS)
        return True, killed

    def _drain_seconds(self) -> float:
        """Return how long workers may serve the sockets of an ASGI application that are open."""
        with contextlib.suppress(AsgictlError):
            found = status(self._name)
            if any(each["role"] == "worker" and each.get("websocket") == "ASGI" for each in found["ready"]):
                is_open = any(each.get("websockets") for each in found["processes"])
                return float(found["options"]["ASGICTL_DRAIN_SECONDS"]) if is_open else 0.0
        return 0.0

    def described(self) -> dict[str, Any]:
        """Return the configuration that runs, as JSON has it; raises NotRunning."""
        return described_of(self._name, self.run_dir)

    def redis_url(self) -> str:
        """Return where its own Redis listens; raises NotRunning, and RedisError when it was given one."""
        self.described()
        return redis_url_of(self._name)

    def ended(self) -> bool:
        """Whether the supervisord that this object started has ended."""
        return self._process is not None and self._process.poll() is not None

    def conclude(self) -> None:
        """Clean up once ended(): after `asgictl stop` elsewhere. Raises SupervisordDied unless it ended in order.

        What it ran serves on then, with its run directory, as after a start that did not wait.
        """
        status = self._process.returncode if self._process else 0
        if status == 0 and not self.run_dir.exists:  # `stop` has seen to it, and another start may run by now
            return
        remains = Remains(self.run_dir.path)
        if status == 0:
            remains.end()  # such as what handlers have started
        if status == 0 or not remains:
            self.clean()
        if status != 0:
            left = (
                "asgictl stop ends the processes that still serve, asgictl start replaces them"
                if remains
                else "nothing is left"
            )
            raise SupervisordDied(f"supervisord {ended(status)}; {left}" + (f": {remains}" if remains else ""))

    def clean(self, bind: Bind | None = None) -> None:
        """Remove what an instance that has ended left. bind: its Unix socket, should its description be lost."""
        with contextlib.suppress(OSError):  # it may never have come that far
            bind = Bind(self.run_dir.description()["bind"])
        if bind:
            bind.release()
        self.run_dir.remove()

    def _remains(self) -> Remains:
        """Return what a killed supervisord has left; raises AlreadyRunning where one lives."""
        if self._supervisor.answers():
            raise AlreadyRunning(RUNNING.format(self._name, named(self._name)))
        remains = Remains(self.run_dir.path)
        if remains.supervisord:
            raise AlreadyRunning(f"instance {self._name!r} is serving, but {remains.mute(self.run_dir.path)}")
        return remains

    def _check(self, config: InstanceConfig, remains: Remains) -> InstanceConfig:
        """Look at all that would keep it from starting and can be known before; returns it with its `background`."""
        self.run_dir.check_room()
        check_files()
        check_server(config.server)
        for bind in _binds(config):
            remains.check(bind)
        if config.redis_url:
            check_redis(config.redis_url, config.name)
        if remains or not config.uses_redis:
            background = has_background(config, self._environment(config), self._stopping, strict=bool(remains))
            config = config if config.uses_redis else replace(config, background=background)
        if config.uses_redis and not config.redis_url:
            find_redis_server()
        if self._stopping.is_set():
            raise Interrupted
        return config

    def _end(self, config: InstanceConfig, remains: Remains) -> None:
        """End what a killed supervisord has left, and what that has started meanwhile; have its place."""
        Remains(self.run_dir.path).end()
        self.orphans = len(remains)
        for bind in _binds(config) if remains else ():
            await_free(bind, self._stopping)
        self.run_dir.clear()

    def _launch(self, config: InstanceConfig) -> None:
        for directory in ("log", "redis"):
            self.run_dir.mkdir(directory)
        self.run_dir.write(release.FILE, config.release)
        environment, server = self._environment(config), ""
        self.run_dir.write(DESCRIPTION, json.dumps(describe(config)))
        if config.uses_redis and not config.redis_url:
            server = find_redis_server()
            environment["ASGICTL_REDIS"] = self.run_dir.redis_url
            environment["ASGICTL_REDIS_SERVER"] = server
        with open(self.run_dir.create_file("log/start.log"), "wb") as log:
            # PYTHONWARNINGS is for the application, and `error` would keep supervisord from answering.
            command = ["-W", "ignore", "-m", "asgictl.control.supervisord_main", "-n", "-c", str(CONFIGURATION)]
            self._process = start_python(command, environment, log)
        deadline = time.monotonic() + config.start_seconds
        while not self._supervisor.answers():
            if self._stopping.wait(POLL_SECONDS):
                raise Interrupted
            if self.ended() or time.monotonic() > deadline:
                raise StartError(f"supervisord does not answer:\n{tail(self.run_dir.path / 'log' / 'start.log')}")
        described = describe(config)
        if server:
            start_role(self.run_dir, self._slots, described, "redis", 1)
            check_redis(self.run_dir.redis_url, config.name)
        for role, expected in {"controller": 1, **roles(config)}.items():
            start_role(self.run_dir, self._slots, described, role, expected)
        if config.bind.text.startswith("unix:"):
            os.chmod(config.bind.text.removeprefix("unix:"), 0o600)  # supervisord makes it 0700

    def _environment(self, config: InstanceConfig) -> dict[str, str]:
        """What supervisor.conf and the processes read. The Redis URL travels here: `ps` would show an argument."""
        told = ("name", "mode", "target", "server", "threads", "workers", "interfaces")
        environment = os.environ | {f"ASGICTL_{each.upper()}": str(getattr(config, each)) for each in told}
        environment |= config.options | {
            "ASGICTL_ADMIN_PORT": str(config.admin_port or 0),
            "ASGICTL_SOCKET": config.bind.supervisor_url,
            "ASGICTL_RUN_DIR": str(self.run_dir.path),
            "ASGICTL_LOG_DIR": f"{self.run_dir.path}/log".replace("%", "%%"),  # supervisord expands it twice
            "ASGICTL_PYTHON": sys.executable,
            "ASGICTL_REDIS_SERVER": "redis-server",
            "ASGICTL_WORKER_STOP_SECONDS": str(stop_seconds("worker", config.options)),
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("ASGICTL_REDIS", None)
        environment.pop("ASGICTL_SHUTDOWN_DELAY", None)  # it is for what stops as a whole: stop() sees to it
        return environment | ({"ASGICTL_REDIS": config.redis_url} if config.redis_url else {})

    def _alive(self, pid: int) -> bool:
        if self._process is not None:
            return not self.ended()
        return asked(lambda: is_alive(psutil.Process(pid)), False)

    def _abandon(self, error: BaseException) -> None:
        """Undo a start that failed; raises what has made it fail, where that is not what was noticed."""
        cause: AsgictlError | None = None
        if isinstance(error, AsgictlError):
            try:
                self.run_dir.check_room()  # a process that cannot write may end without a word
            except RunDirectoryError as full:
                cause = full
        if isinstance(error, NotRunning) and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its socket closes a little before it has ended
                status = self._process.wait(END_SECONDS)
                cause = cause or StartError(f"supervisord {ended(status)} before all processes were ready")
        try:
            self.stop(delays=False)
        except NotRunning:  # it has ended by itself, and nothing is left
            self.clean()
        if cause:
            raise cause from error


def _binds(config: InstanceConfig) -> list[Bind]:
    return [config.bind, *([Bind(f"127.0.0.1:{config.admin_port}")] if config.admin_port else [])]
