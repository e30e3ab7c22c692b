"""The controller: hears which process is ready, what each counts and which has died, and tells whoever asks.

Each process holds a line to the controller's Unix socket open (controller_client.py). The kernel closes it when
the process ends, so a death is known at once; supervisord by itself would notice only after one to two seconds, and is
woken.
The controller keeps nothing that it could not learn again: traffic flows without it.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import psutil
import redis

from asgictl.config import SILENT_SECONDS
from asgictl.control import admin, channel_depths, needs, silence
from asgictl.control.deaths import STOPPED, death, how_ended, servers
from asgictl.control.disk import Disk
from asgictl.control.registry import History
from asgictl.control.scaling import Load, Scaling, room
from asgictl.control.status import ANSWER_SECONDS, look
from asgictl.control.supervisord_client import SERVING, Supervisor
from asgictl.control.what_ran import Ran, what_ran
from asgictl.errors import AsgictlError, StartError
from asgictl.layers.redis.endpoint import endpoint
from asgictl.layers.redis.keys import Keys
from asgictl.layers.redis.leases import leases_of, member, reap
from asgictl.layers.redis.started import take_started
from asgictl.machine.memory import free_and_total_bytes
from asgictl.machine.processes import asked
from asgictl.machine.run_dir import DESCRIPTION, handover_path, has_own_redis, successor_path
from asgictl.machine.ticks import until_tick
from asgictl.telemetry.controller_client import ROLES, SOCKET
from asgictl.telemetry.metrics import Figures

logger = logging.getLogger("asgictl.controller")
LINE_BYTES = 1 << 20  # a failure's reason is a whole traceback
LOOK_SECONDS = 1.0
TOTALS = "totals.json"  # of processes that have ended
IMPATIENT_SECONDS = 0.05  # that supervisord has for a status if it was silent a moment ago: threads that wait are few
AGAIN_SECONDS = 5.0  # after which it is waited for again
START_BUDGET = 5  # times that a process may end before it is ready; supervisord's own counts the first second alone
THREADS = 4  # that see to the dead and the silent; as many more ask supervisord, which may not answer
ALARM_AGAIN_SECONDS = 60.0  # between two alarms about one channel


class Controller:
    """Knows what each ready process last said, by pid, and the last words of those that could not start, by slot.

    admin_port: of 127.0.0.1, beside the admin socket; None for none. silent_seconds: after which a process is ended.
    """

    def __init__(
        self,
        run_dir: Path,
        redis_url: str | None,
        name: str,
        admin_port: int | None = None,
        *,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._run_dir = run_dir
        self._admin_port = admin_port
        self._name = name
        self._keys = Keys(name)
        self._redis = endpoint(redis_url).client(1) if redis_url else None
        self._redis_url = redis_url
        self._redis_process: psutil.Process | None = None
        self._silent_seconds = silent_seconds
        self._leases = leases_of(silent_seconds)
        self._ready: dict[int, dict[str, Any]] = {}
        self._failed: dict[str, dict[str, Any]] = {}
        self._stopping: set[asyncio.StreamWriter] = set()  # lines of those that stop the instance
        self._silenced: set[int] = set()  # who was killed for silence
        self._listened_to: set[int] = set()  # of those that are ready, whose line is their own
        self._seeing_to = ThreadPoolExecutor(THREADS, "seeing-to")
        self._ordering = ThreadPoolExecutor(THREADS, "ordering")
        self._impatient_until = 0.0  # with supervisord, which has just been silent
        self._unready: Counter[str] = Counter()  # by slot, how often in a row it has not become ready
        self._alarmed: dict[str, float] = {}  # by channel, when
        self.history: History = History(run_dir / TOTALS)
        self._disk = Disk(run_dir)
        self.channels: dict[str, channel_depths.Channel] = {}

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        path = self._run_dir / SOCKET
        path.unlink(missing_ok=True)  # a controller before us may have been killed
        umask = os.umask(0o177)
        server = await asyncio.start_unix_server(self._serve_line, path, limit=LINE_BYTES)
        os.umask(umask)
        stopping = asyncio.Event()
        hosted = admin.Hosted(self, admin.listeners(self._run_dir, self._admin_port))
        kept, described = [self._keep_looking(), self._keep_listening()], self._described()
        if described.get("autoscale"):
            least, most = described["autoscale"]
            kept.append(self._keep_scaling(Scaling(least, most, described["threads"])))
        tasks = [asyncio.create_task(each) for each in (*kept, hosted.host())]
        for task in tasks:
            task.add_done_callback(lambda _task: stopping.set())  # none ends by itself but by a fault of ours
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await stopping.wait()
        server.close()
        hosted.handle_exit(signal.SIGTERM, None)
        for task in tasks[:-1]:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        if self._redis is not None:
            self._redis.close()

    async def _serve_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        report: dict[str, Any] = {}
        has_ended = False
        try:
            while line := await reader.readline():
                heard = json.loads(line)
                if "ask" in heard:
                    writer.write(await self._answer(heard, writer))
                elif report and "state" in heard and heard["state"] == "ending":
                    self._listened_to.discard(report["pid"])  # what its end takes is the supervisor's affair
                    report["is_ending"] = True
                    if "figures" in heard:  # its last ones
                        self._count(report["pid"], heard["figures"])
                elif "figures" in heard and report:
                    self._count(report["pid"], heard["figures"])
                else:
                    self._hear(heard)
                    report = heard
                    if report["state"] == "ready":
                        self.history.hear(report["pid"])
                        self._listened_to |= {report["pid"]} & {_peer(writer)}
            has_ended = True
        except ConnectionError:
            has_ended = True
        except (ValueError, LookupError, TypeError) as error:  # a stranger, or another version: it comes again
            logger.warning("lost the connection of a process: %s", error)
        except asyncio.CancelledError:
            pass  # it is we who end
        finally:
            writer.close()
            self._stopping.discard(writer)
            if report:
                self._ready.pop(report["pid"], None)
                self._listened_to.discard(report["pid"])
                self.history.forget(report["pid"], report["process"], has_ended=has_ended)
            if report and has_ended:
                self._died(report)

    async def _answer(self, question: dict[str, Any], writer: asyncio.StreamWriter) -> bytes:
        """Do what is asked on a line, and return what is known then."""
        if question["ask"] == "forget":
            self._forget(question["processes"])
        elif question["ask"] == "stopping":
            self._stopping.add(writer)
        known = await self.status() if question["ask"] == "status" else self._reports()
        return json.dumps(known).encode() + b"\n"

    def _count(self, pid: int, figures: object) -> None:
        self.history.add(pid, msgspec.convert(figures, Figures, str_keys=True))

    def _reports(self) -> dict[str, Any]:
        return {"ready": list(self._ready.values()), "failed": list(self._failed.values()), "moves": self.moves()}

    def moves(self) -> dict[str, dict[str, int]]:
        """Return how many sockets were moved, refused and overdue, by slot, by processes that have ended too."""
        return self.history.moves({each["process"]: pid for pid, each in self._ready.items()})

    async def query_depths(self) -> None:
        """Return at once: they are queried each second."""

    async def status(self) -> dict[str, Any]:
        """Return what `asgictl status --json` prints; {} when supervisord is gone."""
        known = {**self._reports(), **self.history.summary(), "channels": self._seen(), "silenced": self._silenced}
        known["ended"] = servers.seen()
        known["warnings"] = [self._disk.warning] if self._disk.warning else []
        began = time.monotonic()
        seconds = IMPATIENT_SECONDS if began < self._impatient_until else ANSWER_SECONDS
        try:
            return dict(await asyncio.to_thread(look, self._run_dir, known, seconds))
        except AsgictlError:
            return {}
        finally:
            if time.monotonic() - began > seconds:
                self._impatient_until = time.monotonic() + AGAIN_SECONDS

    def who(self) -> dict[int, dict[str, Any]]:
        """Return the report of each process that is ready, Redis and ourselves included, by pid."""
        ours = {os.getpid(): "controller"}
        if self._redis_process:
            ours[self._redis_process.pid] = "redis"
        return {pid: {"role": role, "process": role} for pid, role in ours.items()} | self._ready

    def unready(self) -> str:
        """Say what is missing before requests can be answered; "" when nothing is."""
        heard = [
            report for pid, report in self._ready.items() if self.history.silent_seconds(pid) < self._silent_seconds
        ]
        roles = {report["role"] for report in heard}
        missing = () if "server" in roles else sorted({"interface", "worker"} - roles)
        deaf = {report["role"] for report in heard if self._has_lost_redis(report)}
        deaf -= {report["role"] for report in heard if not self._has_lost_redis(report)}
        full = {report["role"] for report in heard if self._is_full(report)}
        full -= {report["role"] for report in heard if not self._is_full(report)}
        reasons = ["the instance is shutting down"] if self._stopping else []
        reasons += [f"no {role} is ready" for role in missing]
        reasons += [f"no {role} has had an answer from Redis within its lease" for role in sorted(deaf)]
        return ", ".join([*reasons, *(f"every {role} has reached its open file limit" for role in sorted(full))])

    def late(self) -> dict[str, str]:
        """Say by channel which events have waited too long for a worker, and what to do."""
        return needs.unserved(self._seen())

    def _is_full(self, report: dict[str, Any]) -> bool:
        """Whether a process has as many connections as open files allow."""
        latest = self.history.latest().get(report["pid"])
        return latest is not None and bool(latest.full)

    def _has_lost_redis(self, report: dict[str, Any]) -> bool:
        """Whether Redis has been silent to an interface or worker for longer than its lease: others have its work."""
        latest = self.history.latest().get(report["pid"])
        lease = self._leases.get(report["role"], inf)  # a server answers requests without Redis
        return latest is not None and latest.redis_silent_seconds > lease

    def _hear(self, report: dict[str, Any]) -> None:
        if not (isinstance(report["pid"], int) and report["role"] in ROLES and isinstance(report["process"], str)):
            raise ValueError("not a process of this instance")
        if report["state"] == "ready":
            self._ready[report["pid"]] = report
            self._failed.pop(report["process"], None)
            del self._unready[report["process"]]
        elif report["state"] == "failed":
            self._failed[report["process"]] = report

    def _forget(self, processes: list[str]) -> None:
        """What starts in these slots now has no part in how others have failed there."""
        for process in processes:
            self._failed.pop(process, None)
            del self._unready[process]
            servers.forget(process)

    def _died(self, report: dict[str, Any]) -> None:
        if report["state"] == "starting":
            self._failed[report["process"]] = {**report, "reason": "", "exit_code": StartError.exit_code}
        supervisor = Supervisor(self._run_dir)
        self._act(self._seeing_to, partial(self._see_to, report))
        self._act(self._ordering, supervisor.answers)
        if report["state"] != "ready":
            self._unready[report["process"]] += 1
            if self._unready[report["process"]] >= START_BUDGET:
                self._act(self._ordering, partial(self._give_up, supervisor, report["process"]))

    def _act(self, executor: Executor, act: Callable[[], object]) -> None:
        executor.submit(act).add_done_callback(_acted)

    def _give_up(self, supervisor: Supervisor, process: str) -> None:
        """Stop a slot whose process does not start, however often it is tried; the rest goes on."""
        logger.error(
            "%s failed to start %d times in a row and is not started again: fix it, then asgictl reload",
            process,
            START_BUDGET,
        )
        self._failed[process]["is_given_up"] = True
        for slot in supervisor.processes():
            if slot["name"] == process and slot["statename"] in SERVING:
                supervisor.stop(slot["group"], process)

    def _see_to(self, report: dict[str, Any]) -> None:
        """Reap a dead process, and have its death logged, unless it ended in order or was killed for its silence."""
        if "is_ending" in report or report["pid"] in self._silenced:
            self._reap(report)
        else:
            ran = self._what_ran(report["pid"])
            self._reap(report)
            self._act(self._ordering, partial(self._log_death, report, ran))

    def _what_ran(self, pid: int) -> list[Ran]:
        return what_ran(self._run_dir, pid, self._redis_url)

    def _log_death(self, report: dict[str, Any], ran: list[Ran]) -> None:
        """Log a death, once it is known how it came."""
        has_said_why = report["state"] == "failed"
        was_ready = report["state"] == "ready"
        how = "" if has_said_why else how_ended(self._run_dir, report["process"], report["pid"], was_ready=was_ready)
        if how != STOPPED or ran:
            logger.error("%s", death(report, how, ran))
        failed = self._failed.get(report["process"])
        if failed and failed["pid"] == report["pid"]:
            failed["how"] = how

    def _reap(self, report: dict[str, Any]) -> None:
        """See to what a dead process held in Redis. Should that fail, its lease lapses and others see to it."""
        pid = report["pid"]
        run_dir = self._run_dir
        for left in (run_dir / f"begun-{pid}", handover_path(run_dir, pid), successor_path(run_dir, pid)):
            left.unlink(missing_ok=True)
        ids = report.get("ids", [report["id"]] if "id" in report else [])
        if self._redis_url is None or not ids:
            return
        role = "worker" if report["role"] == "server" else report["role"]  # a server runs background work
        started = take_started(self._run_dir / f"started-{pid}")
        try:
            with endpoint(self._redis_url).client() as client:
                for id in ids:
                    reap(client, self._keys, member(role, id), seen=True, started=started)
        except redis.RedisError as error:
            logger.warning("could not reap %s; its lease will expire: %s", report["process"], error)

    async def _keep_listening(self) -> None:
        """End whoever is silent. Never waits for Redis or supervisord."""
        listening, ran = silence.Silence(self._silent_seconds, time.monotonic()), dict[int, Future[list[Ran]]]()
        while True:
            await asyncio.sleep(until_tick(silence.CHECK_SECONDS))
            heard = {pid: self.history.heard[pid] for pid in self._listened_to}
            suspects = listening.suspects(heard, time.monotonic())
            for pid in suspects.keys() - ran.keys():
                ran[pid] = self._seeing_to.submit(self._what_ran, pid)
            ran = {pid: found for pid, found in ran.items() if pid in suspects}
            for pid, seconds in suspects.items():
                if seconds >= self._silent_seconds:
                    self._listened_to.discard(pid)  # once is enough
                    report = self._ready.pop(pid)
                    self._silenced.add(pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        silence.end(psutil.Process(pid))  # the end of its line has it reaped
                        self._act(self._seeing_to, partial(self._log_silence, report, seconds, ran[pid]))

    def _log_silence(self, report: dict[str, Any], seconds: float, ran: Future[list[Ran]]) -> None:
        """Log that a silent process was ended, once it is known what it ran."""
        how = f"was silent for {seconds:.1f} s and was killed (--silent-seconds {self._silent_seconds:g})"
        logger.error("%s", death(report, how, ran.result()))

    def _described(self) -> dict[str, Any]:
        try:
            described: dict[str, Any] = json.loads((self._run_dir / DESCRIPTION).read_text())
        except OSError:  # somebody has removed it
            return {}
        return described

    async def _keep_scaling(self, scaling: Scaling) -> None:
        """Have as many workers as the load needs; one step at a time, which lasts until the new ones are ready."""
        while True:
            await asyncio.sleep(until_tick(LOOK_SECONDS))
            pids = [pid for pid, report in self._ready.items() if report["role"] == "worker"]
            waiting = sum(channel.depth - channel.taken for channel in self.channels.values())
            oldest = max((channel.oldest_seconds for channel in self.channels.values()), default=0.0)
            load, workers = Load(*self.history.work(pids), waiting, oldest), self._described().get("workers", 0)
            largest = max((asked(psutil.Process(pid).memory_info, None) or (0,))[0] for pid in pids) if pids else 0
            step = scaling.decide(load, workers, room(*free_and_total_bytes(), largest), time.monotonic())
            if step and workers:
                logger.info("scaling from %d to %d workers: %s", workers, *step)
                await asyncio.to_thread(self._scale, step.workers)

    def _scale(self, workers: int) -> None:
        from asgictl.control.deploys import Deploys  # slow to load

        try:
            Deploys(self._name).scale("worker", workers)
        except AsgictlError as error:  # as while a reload is under way: the next look tries again
            logger.warning("could not scale to %d workers: %s", workers, error)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.to_thread(self._look_at_redis)
            servers.look()
            self._disk.check()
            self._alarm()
            self.history.add(os.getpid(), Figures(cpu_seconds=time.process_time()))
            self._measure_redis()
            await asyncio.sleep(until_tick(LOOK_SECONDS))

    def _measure_redis(self) -> None:
        if process := self._redis_process:
            try:
                times = process.cpu_times()
            except psutil.Error:  # it has ended
                self.history.forget(process.pid)
                self._redis_process = None
            else:
                self.history.add(process.pid, Figures(cpu_seconds=times.user + times.system))

    def _look_at_redis(self) -> None:
        """See how full the channels are; while Redis is away nothing is known of them."""
        found: dict[str, channel_depths.Channel] = {}
        if self._redis is not None:
            with contextlib.suppress(redis.RedisError, psutil.Error):
                found = channel_depths.look(self._redis, self._keys)
                # Else it may be another machine's.
                if self._redis_process is None and has_own_redis(self._run_dir):
                    info: Any = self._redis.info("server")
                    self._redis_process = psutil.Process(info["process_id"])
        self.channels = found

    def _seen(self) -> dict[str, dict[str, Any]]:
        return {name: channel._asdict() for name, channel in self.channels.items()}

    def _alarm(self) -> None:
        now = time.monotonic()
        for channel, line in self.late().items():
            if now - self._alarmed.get(channel, -ALARM_AGAIN_SECONDS) >= ALARM_AGAIN_SECONDS:
                self._alarmed[channel] = now
                logger.warning("%s (logged at most every %.0f s)", line, ALARM_AGAIN_SECONDS)


def _acted(action: Future[object]) -> None:
    if not action.cancelled() and (error := action.exception()):
        logger.error("could not handle the end of a process: %s", error)


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the process at the other end of a line: only itself is ended for the silence of its line."""
    line = writer.get_extra_info("socket")
    if sys.platform == "darwin":
        return int(line.getsockopt(0, 2))  # SOL_LOCAL, LOCAL_PEERPID
    pid: int = struct.unpack("iII", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid
