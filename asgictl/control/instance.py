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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis

from asgictl.app import outside, release
from asgictl.config import Bind, InstanceConfig
from asgictl.control.log_tail import tail
from asgictl.control.preflight import check_files, ended, find_redis_server, has_background, start_python
from asgictl.control.remains import Remains, await_free, not_running
from asgictl.control.slots import POLL_SECONDS, Interrupted, Slots
from asgictl.control.status import status
from asgictl.control.supervisord_client import Supervisor
from asgictl.errors import AlreadyRunning, AsgictlError, NotRunning, RunDirectoryError, StartError, SupervisordDied
from asgictl.interface.hosting import check_server
from asgictl.layers.redis.sync_client import check_redis
from asgictl.machine import processes
from asgictl.machine.processes import BACK_SECONDS, CHILDREN_SECONDS, FRONT_SECONDS, asked, is_alive, is_in_front
from asgictl.machine.run_dir import DESCRIPTION, RunDir
from asgictl.telemetry.controller_client import SOCKET
from asgictl.telemetry.logs import masked

CONFIGURATION = Path(__file__).with_name("supervisor.conf")
CHANGING = "changing"  # the lock of a change
END_SECONDS = 1.0  # that a supervisord which is gone has to have ended
RUNNING = "an instance {!r} runs already; asgictl stop, or another --name"
WORKER_STOP_SECONDS = 40  # more than a worker gives what it runs (worker/watchdog.py) and closing its sockets


class Instance:
    """The instance of this name. stopping: set by whoever wants a start to be given up.

    orphans: how many processes a start has ended that a killed supervisord had left.
    Raises RunDirectoryError when its run directory cannot be trusted; nothing was touched then.
    """

    orphans = 0

    def __init__(self, name: str, stopping: threading.Event | None = None) -> None:
        self.run_dir = RunDir.of(name)
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
            raise AlreadyRunning(RUNNING.format(self._name))
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

    def stop(self) -> int:
        """Drain and stop everything, and end what handlers have started; returns how many processes had to be killed.

        Raises NotRunning.
        """
        bind = Remains(self.run_dir.path).bind  # its description may have been removed
        try:
            in_time, killed = self._shut_down()
            killed += processes.end(Remains(self.run_dir.path).processes, 0.0, CHILDREN_SECONDS if in_time else 0.0)
        except NotRunning:
            remains = Remains(self.run_dir.path)
            if not remains:
                raise not_running(self._name, self.run_dir.path) from None
            killed = remains.end()
        self.clean(bind)
        return killed

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

    def replace(self, role: str, name: str | None = None) -> "Cost":
        """Start new processes of a role, and let the old drain once all of the new are ready: a deploy.

        name: of the release, "" for a hash of the code, None for the one that it has. Interfaces are replaced one by
        one. Returns what it cost. Raises NotRunning, AlreadyRunning while another change is under way, and as
        Slots.start(): the old have gone on then, and the new are gone.
        """
        with self._changing() as described:
            if role in ({"server"} if described["mode"] == "split" else {"worker", "interface"}):
                raise NotRunning(f"--mode={described['mode']} has no {role}")
            old = self._slots.serving(group_of(described, role))
            if role in ("redis", "controller"):
                return self._restart(described, role, old)
            count, closed, killed = (1 if role == "interface" else described["workers"]), 0, 0
            for drained in [[each] for each in old] if role == "interface" else [old]:
                with self._released(name):
                    self._start(described, role, count)
                closed += self._open_sockets(drained)
                killed += self._slots.stop(group_of(described, role), drained)
            return Cost(closed, killed)

    @contextlib.contextmanager
    def _released(self, name: str | None) -> Iterator[None]:
        """Have processes that start take this name; what fails to start leaves the one that was."""
        before = ""
        if name is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                before = self.run_dir.read(release.FILE)
            self.run_dir.write(release.FILE, name)
        try:
            yield
        except BaseException:
            if name is not None:
                with contextlib.suppress(RunDirectoryError):  # what made it fail says more
                    self.run_dir.write(release.FILE, before)
            raise

    def _open_sockets(self, names: list[str]) -> int:
        """Return how many WebSockets interfaces or servers hold, which end with them; workers hold none."""
        serving = status(self._name)["processes"]
        return sum(each.get("websockets", 0) for each in serving if each["process"].partition("/")[0] in names)

    def _restart(self, described: dict[str, Any], role: str, old: list[str]) -> "Cost":
        """Restart what there is only one of; connections wait for it."""
        if not old:
            raise NotRunning(f"no {role} of this instance's own runs")
        killed = self._slots.stop(role, old)
        self._start(described, role, 1)
        return Cost(0, killed)

    def scale(self, role: str, count: int) -> "Cost":
        """Have so many processes of a role: start more, or drain the last ones. Returns and raises as replace()."""
        with self._changing() as described:
            if described["mode"] != "split":
                raise StartError("in-process there is one server, whose --workers are gunicorn's: restart it instead")
            serving = self._slots.serving(role)
            more = count - len(serving)
            started = self._start(described, role, more) if more > 0 else []
            try:
                self.run_dir.write(DESCRIPTION, json.dumps({**described, f"{role}s": count}))
            except BaseException:
                self._slots.stop(role, started)
                raise
            closed = self._open_sockets(serving[count:])
            return Cost(closed, self._slots.stop(role, serving[count:]))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Have the instance to ourselves for one change; yields its configuration."""
        described = self.described()
        with self.run_dir.locked(CHANGING) as is_ours:
            if not is_ours:
                raise AlreadyRunning("another reload, restart or scale is under way; wait for it")
            self.run_dir.check_room()  # else what starts could neither log nor be described
            yield described

    def described(self) -> dict[str, Any]:
        """Return the configuration that runs, as JSON has it; raises NotRunning."""
        if self._supervisor.answers():
            with contextlib.suppress(OSError):
                return self.run_dir.description()
        raise not_running(self._name, self.run_dir.path)

    def _start(self, described: dict[str, Any], role: str, count: int) -> list[str]:
        """Start processes of a role, and return their slots once they are ready."""
        group, deadline = group_of(described, role), time.monotonic() + described["start_seconds"]
        if group == "gunicorn":  # which has all of its processes in one slot
            return self._slots.start(group, 1, deadline, lambda names: self._slots.ready(names) >= count)
        if role == "redis":
            return self._slots.start(group, 1, deadline, lambda _: pings(self.run_dir.redis_url))
        if role == "controller":
            return self._slots.start(group, 1, deadline, lambda _: (self.run_dir.path / SOCKET).exists())
        return self._slots.start(group, count, deadline)

    def redis_url(self) -> str:
        """Return where its own Redis listens; raises NotRunning, and RedisError when it was given one."""
        self.described()
        return outside.redis_url_of(self._name)

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
            left = "asgictl stop ends what serves on, asgictl start replaces it" if remains else "nothing is left"
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
            raise AlreadyRunning(RUNNING.format(self._name))
        remains = Remains(self.run_dir.path)
        if remains.supervisord:
            raise AlreadyRunning(f"an instance {self._name!r} serves, but {remains.mute(self.run_dir.path)}")
        return remains

    def _check(self, config: InstanceConfig, remains: Remains) -> InstanceConfig:
        """Look at all that would keep it from starting and can be known before; returns it with its `background`."""
        self.run_dir.check_room()
        check_files()
        check_server(config.server)
        for bind in _binds(config):
            remains.check(bind)
        if config.redis_url:
            check_redis(config.redis_url)
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
            command = ["-m", "asgictl.control.supervisord_main", "-n", "-c", str(CONFIGURATION)]
            self._process = start_python(command, environment, log)
        deadline = time.monotonic() + config.start_seconds
        while not self._supervisor.answers():
            if self._stopping.wait(POLL_SECONDS):
                raise Interrupted
            if self.ended() or time.monotonic() > deadline:
                raise StartError(f"supervisord does not answer:\n{tail(self.run_dir.path / 'log' / 'start.log')}")
        described = describe(config)
        if server:
            self._start(described, "redis", 1)
            check_redis(self.run_dir.redis_url)
        self._start(described, "controller", 1)
        for role, expected in roles(config).items():
            self._start(described, role, expected)
        if config.bind.text.startswith("unix:"):
            os.chmod(config.bind.text.removeprefix("unix:"), 0o600)  # supervisord makes it 0700

    def _environment(self, config: InstanceConfig) -> dict[str, str]:
        """What supervisor.conf and the processes read. The Redis URL travels here: `ps` would show an argument."""
        told = ("name", "mode", "target", "server", "threads", "workers")
        drain_seconds = float(config.options.get("ASGICTL_DRAIN_SECONDS", 0))
        environment = os.environ | {f"ASGICTL_{each.upper()}": str(getattr(config, each)) for each in told}
        environment |= config.options | {
            "ASGICTL_ADMIN_PORT": str(config.admin_port or 0),
            "ASGICTL_SOCKET": config.bind.supervisor_url,
            "ASGICTL_RUN_DIR": str(self.run_dir.path),
            "ASGICTL_PYTHON": sys.executable,
            "ASGICTL_REDIS_SERVER": "redis-server",
            "ASGICTL_WORKER_STOP_SECONDS": str(int(drain_seconds) + WORKER_STOP_SECONDS),
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("ASGICTL_REDIS", None)
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
                cause = cause or StartError(f"supervisord {ended(status)} before all was ready")
        try:
            self.stop()
        except NotRunning:  # it has ended by itself, and nothing is left
            self.clean()
        if cause:
            raise cause from error


class Cost(NamedTuple):
    """Of a change. closed: WebSockets (1012). killed: processes that did not drain in time."""

    closed: int
    killed: int


def group_of(described: dict[str, Any], role: str) -> str:
    """Return what supervisor.conf calls a role's processes."""
    return "gunicorn" if role == "server" and described["server"] == "uvicorn" else role


def _binds(config: InstanceConfig) -> list[Bind]:
    return [config.bind, *([Bind(f"127.0.0.1:{config.admin_port}")] if config.admin_port else [])]


def roles(config: InstanceConfig) -> dict[str, int]:
    """Return how many ready processes each role has, in the order in which they start."""
    if config.mode == "inprocess":
        return {"server": config.workers}
    return {"worker": config.workers, "interface": config.interfaces}


def describe(config: InstanceConfig) -> dict[str, Any]:
    """Return a configuration as JSON has it, without what is secret in it."""
    described = asdict(config)
    described |= {"bind": config.bind.text, "url": config.url}
    described["options"] = {name: masked(value) for name, value in config.options.items()}
    described["redis"] = "external" if described.pop("redis_url") else "embedded" if config.uses_redis else "none"
    return described


def pings(url: str) -> bool:
    """Whether the Redis at `url` answers."""
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
