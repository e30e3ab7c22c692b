"""How an instance is, as `asgictl status --json` prints it (status_schema.py has what each field means).

The controller knows it already, so it is one question however many processes there are. While it is away supervisord
is asked, which knows less. Either may stand still: then it is said, with what the other knows.
"""

import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, cast

import asgictl
from asgictl.control.description import completed
from asgictl.control.needs import DRAINING, needs
from asgictl.control.registry import UNKNOWN
from asgictl.control.status_schema import LastExit, Process, Status
from asgictl.errors import NotRunning
from asgictl.machine.run_dir import DESCRIPTION, RunDir, redis_url
from asgictl.telemetry.controller_client import ask

STATUS_SECONDS = 2.6  # for the controller and, where it is silent, supervisord
ANSWER_SECONDS = 1.0  # for supervisord, when it is the controller that asks
LEAST_ANSWER_SECONDS = 0.5  # of it for supervisord
SILENT = "the controller does not answer, so it is not known what is ready; run asgictl restart controller"
AWAY = "the controller has ended, so it is not known what is ready; supervisord restarts it: asgictl logs controller"


def status(name: str) -> Status:
    """Return how the instance of this name is; raises NotRunning."""
    run_dir, known = RunDir.of(name).path, UNKNOWN
    found: Status | None = None
    deadline = time.monotonic() + STATUS_SECONDS
    try:
        found = ask(run_dir, "status")
    except TimeoutError:
        known = {**UNKNOWN, "warnings": [SILENT]}
    except OSError:
        known = {**UNKNOWN, "warnings": [AWAY]}
    try:
        return found or look(run_dir, known, max(deadline - time.monotonic(), LEAST_ANSWER_SECONDS))
    except NotRunning:
        from asgictl.control.remains import not_running  # slow to load

        raise not_running(name, run_dir) from None


def look(run_dir: Path, known: dict[str, Any], answer_seconds: float = ANSWER_SECONDS) -> Status:
    """Return the configuration, every started process and what the controller knows; raises NotRunning.

    answer_seconds: that supervisord has; without its answer, processes that are ready are all that is known.
    """
    # Not what `status` usually needs, and slow to load.
    from asgictl.control.supervisord_client import NotAnswering, Supervisor

    warnings = list(known.get("warnings", ()))
    try:
        slots = Supervisor(run_dir, answer_seconds).started()
    except NotAnswering as error:
        slots = [{"name": each["process"], "statename": "RUNNING", "pid": each["pid"]} for each in known["ready"]]
        warnings.append(str(error))
    try:
        configuration = completed(json.loads((run_dir / DESCRIPTION).read_text()))
    except OSError as error:
        raise NotRunning(f"no description of the instance: {error}") from None
    configuration["redis_url"] = redis_url(run_dir) if configuration["redis"] == "embedded" else ""
    draining = {slot["name"] for slot in slots if slot["statename"] == DRAINING}
    processes = _processes(slots, known, draining)
    reports = [{**report, "is_draining": report["process"] in draining} for report in known["ready"]]
    threads = configuration["workers"] * configuration["threads"]
    return compose(configuration, processes, {**known, "ready": reports}, warnings, threads)


def compose(
    configuration: dict[str, Any], processes: list[Process], known: dict[str, Any], warnings: list[str], threads: int
) -> Status:
    """Put a status together. known: as a controller's, its reports with is_draining. threads: that there are to be."""
    ready = [report for report in known["ready"] if not report.pop("is_draining")]
    found = {
        **configuration,
        "version": asgictl.__version__,
        "processes": processes,
        "ready": ready,
        **{key: known[key] for key in ("requests", "turns", "channels")},
        "shed": known["rejections"],  # the schema is frozen
        "database_connections_at_most": max(threads, _threads(ready)) + _threads(known["ready"]) - _threads(ready),
    }
    status = cast(Status, found | {"warnings": warnings})
    warnings += needs(status, known["failed"])
    return status


def _processes(slots: list[dict[str, Any]], known: dict[str, Any], draining: Collection[str]) -> list[Process]:
    reports = {report["pid"]: report for report in known["ready"]}
    names, pids = ({slot[key] for slot in slots} for key in ("name", "pid"))
    slots += [  # gunicorn's workers share a slot; in one that is not there a process has just ended
        {"name": f"{name}/{pid}", "statename": DRAINING if name in draining else "RUNNING", "pid": pid}
        for pid, report in reports.items()
        if pid not in pids and (name := report["process"]) in names
    ]
    silent, figures = known["silenced"], known["figures"]
    slots.sort(key=lambda slot: by_name(slot["name"]))
    found: list[Process] = []
    for slot in slots:
        pid = slot["pid"]
        uptime, rss = _measured(pid)
        process = process_of(slot["name"], slot["statename"], reports.get(pid, {}), figures.get(pid), uptime, rss)
        ends = [each for each in (slot, known["ended"].get(slot["name"])) if each and each.get("last_exit")]
        restarts = sum(each["restarts"] for each in ends)
        last = max((each["last_exit"] for each in ends), key=lambda end: float(end["at"]), default=None)
        found.append({**process, "pid": pid, "restarts": restarts, "last_exit": _exit(last, silent)})
    return found


def by_name(process: str) -> tuple[str, int, str]:
    """Return what processes are sorted by: 99 comes before 100."""
    return process.partition("-")[0], len(process), process


def _measured(pid: int) -> tuple[float | None, int | None]:
    """Return a process's uptime and its memory."""
    import psutil

    try:
        found = psutil.Process(pid)
        return time.time() - found.create_time(), found.memory_info().rss
    except psutil.Error:  # it has none, or has just ended
        return None, None


def process_of(
    name: str, state: str, report: dict[str, Any], figures: dict[str, Any] | None, uptime: float | None, rss: int | None
) -> Process:
    """Describe a process. report: {} of one that is not ready; figures: of History, None before there are any."""
    busy = figures["busy_threads"] / report["threads"] if figures and "threads" in report else None
    counts: Any = {key: value for key, value in (figures or {}).items() if key != "busy_threads"}
    process: Process = {
        "role": name.partition("-")[0],
        "process": name,
        "state": state,
        "pid": report.get("pid", 0),
        "ready": bool(report),
        "release": report.get("release", ""),
        "uptime_seconds": uptime,
        "rss_bytes": rss,
        "busy_share": busy if busy is None else min(busy, 1.0),
        "restarts": 0,
        "last_exit": None,
    }
    process.update(counts)
    return process


def _exit(last: dict[str, Any] | None, silenced: Collection[int]) -> LastExit | None:
    if last is None:
        return None
    from asgictl.control.exits import Exit, reason, signal_name

    end = Exit(**last)
    return {
        "pid": end.pid,
        "seconds_ago": max(time.time() - end.at, 0.0),
        "reason": reason(end, is_silent=end.pid in silenced),
        "signal": signal_name(end.signal),
        "status": None if end.signal else end.status,
    }


def _threads(reports: Iterable[dict[str, Any]]) -> int:
    """Return how many threads run handlers, each of which can have a connection to a database."""
    return sum(report.get("threads", 0) for report in reports)
