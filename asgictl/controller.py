"""The controller: hears which process is ready and which has died, and tells whoever asks.

Each process holds a line to the controller's Unix socket open (readiness.py). The kernel closes it when the process
ends, so a death is known at once; supervisord by itself would notice only after one to two seconds, and is woken.
The controller keeps nothing that it could not learn again: traffic flows without it.
"""

import asyncio
import json
import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import redis

from asgictl.errors import StartError
from asgictl.layers.keys import Keys
from asgictl.layers.leases import member, reap
from asgictl.readiness import SOCKET
from asgictl.started import take_started
from asgictl.supervisor import Supervisor

logger = logging.getLogger("asgictl.controller")
UNKNOWN: dict[str, Any] = {"ready": [], "failed": [], "shed": {}}
LINE_BYTES = 1 << 20  # a failure's reason is a whole traceback


class Controller:
    """Knows what each ready process last said, by pid, and the last words of those that could not start, by slot."""

    def __init__(self, run_dir: Path, redis_url: str | None, name: str) -> None:
        self._run_dir = run_dir
        self._redis_url = redis_url
        self._keys = Keys(name)
        self._ready: dict[int, dict[str, Any]] = {}
        self._failed: dict[str, dict[str, Any]] = {}
        self._actions: set[asyncio.Future[Any]] = set()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        path = self._run_dir / SOCKET
        path.unlink(missing_ok=True)  # a controller before us may have been killed
        umask = os.umask(0o177)
        server = await asyncio.start_unix_server(self._serve_line, path, limit=LINE_BYTES)
        os.umask(umask)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await stopping.wait()
        server.close()

    async def _serve_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        report: dict[str, Any] = {}
        has_ended = False
        try:
            while line := await reader.readline():
                heard = json.loads(line)
                if heard == {"ask": "status"}:
                    writer.write(json.dumps(await self._status()).encode() + b"\n")
                else:
                    self._hear(heard)
                    report = heard
            has_ended = True
        except ConnectionError:
            has_ended = True
        except (ValueError, LookupError, TypeError) as error:  # a stranger, or another version: it comes again
            logger.warning("a line to the controller broke: %s", error)
        except asyncio.CancelledError:
            pass  # it is we who end
        finally:
            writer.close()
            if report and has_ended:
                self._died(report)

    async def _status(self) -> dict[str, Any]:
        shed = await asyncio.get_running_loop().run_in_executor(None, self._shed)
        return {"ready": list(self._ready.values()), "failed": list(self._failed.values()), "shed": shed}

    def _shed(self) -> dict[str, int]:
        """Return what interfaces have counted, by reason; nothing while Redis is away."""
        if self._redis_url is None:
            return {}
        try:
            with redis.Redis.from_url(self._redis_url, socket_timeout=1) as client:
                counted: Any = client.hgetall(self._keys.shed)
        except redis.RedisError:
            return {}
        return {reason.decode(): int(times) for reason, times in counted.items()}

    def _hear(self, report: dict[str, Any]) -> None:
        if report["state"] == "ready":
            self._ready[report["pid"]] = report
            self._failed.pop(report["process"], None)
        elif report["state"] == "failed":
            self._failed[report["process"]] = report

    def _died(self, report: dict[str, Any]) -> None:
        if report["state"] == "starting":
            self._failed[report["process"]] = {**report, "reason": "", "exit_code": StartError.exit_code}
        self._ready.pop(report["pid"], None)
        for act in (partial(self._reap, report), Supervisor(self._run_dir).answers):
            action = asyncio.get_running_loop().run_in_executor(None, act)
            self._actions.add(action)
            action.add_done_callback(self._actions.discard)

    def _reap(self, report: dict[str, Any]) -> None:
        """See to what a dead process held in Redis. Should that fail, its lease lapses and others see to it."""
        if self._redis_url is None or report["role"] == "server" or "id" not in report:
            return
        started = take_started(self._run_dir / f"started-{report['pid']}")
        try:
            with redis.Redis.from_url(self._redis_url, socket_timeout=5) as client:
                reap(client, self._keys, member(report["role"], report["id"]), seen=True, started=started)
        except redis.RedisError as error:
            logger.warning("what %s held waits for its lease to lapse: %s", report["process"], error)


async def ask_status(run_dir: Path) -> dict[str, Any]:
    """Return what the controller knows: {"ready": reports, "failed": reports, "shed": {reason: times}}.

    Raises OSError while it is away.
    """
    reader, writer = await asyncio.open_unix_connection(run_dir / SOCKET, limit=16 * LINE_BYTES)
    try:
        writer.write(b'{"ask": "status"}\n')
        status: dict[str, Any] = json.loads(await reader.readline() or b"{}")
        return status or UNKNOWN
    finally:
        writer.close()
