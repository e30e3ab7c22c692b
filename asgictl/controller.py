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
from pathlib import Path
from typing import Any

from asgictl.errors import StartError
from asgictl.readiness import SOCKET
from asgictl.supervisor import Supervisor

logger = logging.getLogger("asgictl.controller")
LINE_BYTES = 1 << 20  # a failure's reason is a whole traceback


class Controller:
    """Knows what each ready process last said, by pid, and the last words of those that could not start, by slot."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._ready: dict[int, dict[str, Any]] = {}
        self._failed: dict[str, dict[str, Any]] = {}
        self._wakers: set[asyncio.Future[bool]] = set()

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
        try:
            while line := await reader.readline():
                heard = json.loads(line)
                if heard == {"ask": "status"}:
                    status = {"ready": list(self._ready.values()), "failed": list(self._failed.values())}
                    writer.write(json.dumps(status).encode() + b"\n")
                else:
                    self._hear(heard)
                    report = heard
        except (ValueError, LookupError, TypeError, ConnectionError) as error:  # a stranger, or cut in mid-sentence
            logger.warning("a line to the controller broke: %s", error)
        finally:
            writer.close()
            if report:
                self._died(report)

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
        waker = asyncio.get_running_loop().run_in_executor(None, Supervisor(self._run_dir).answers)
        self._wakers.add(waker)
        waker.add_done_callback(self._wakers.discard)


async def ask_status(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what the controller knows: {"ready": reports, "failed": reports}. Raises OSError while it is away."""
    reader, writer = await asyncio.open_unix_connection(run_dir / SOCKET, limit=16 * LINE_BYTES)
    try:
        writer.write(b'{"ask": "status"}\n')
        status: dict[str, list[dict[str, Any]]] = json.loads(await reader.readline() or b"{}")
        return status or {"ready": [], "failed": []}
    finally:
        writer.close()
