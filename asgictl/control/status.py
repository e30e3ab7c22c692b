"""How an instance is: what `asgictl status` prints, and the same as JSON for programs.

The controller knows it already, so it is one question however many processes there are. While it is away supervisord
is asked, which knows less. Either may stand still: then it is said, with what the other knows.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asgictl
from asgictl.control.registry import UNKNOWN
from asgictl.errors import NotRunning
from asgictl.machine.run_dir import DESCRIPTION, RunDir
from asgictl.telemetry.controller_client import PUSH_SECONDS, ask

if TYPE_CHECKING:
    from rich.console import RenderableType

STATUS_SECONDS = 2.6  # for the controller and, where it is silent, supervisord
ANSWER_SECONDS = 1.0  # for supervisord, when it is the controller that asks
LEAST_ANSWER_SECONDS = 0.5  # of it for supervisord
SILENT_SECONDS = 3 * PUSH_SECONDS  # without a report: a process that stands still, or whose code lets no thread run
REDIS_SILENT_SECONDS = 3.0  # Redis answers each process once a second
SILENT = "the controller does not answer: it stands still, and nobody knows what is ready; asgictl restart controller"


def status(name: str) -> dict[str, Any]:
    """Return how the instance of this name is; raises NotRunning."""
    run_dir, found, known = RunDir.of(name).path, {}, UNKNOWN
    deadline = time.monotonic() + STATUS_SECONDS
    try:
        found = ask(run_dir, "status")
    except TimeoutError:
        known = {**UNKNOWN, "warnings": [SILENT]}
    except OSError:  # the controller is away
        pass
    try:
        return found or look(run_dir, known, max(deadline - time.monotonic(), LEAST_ANSWER_SECONDS))
    except NotRunning:
        from asgictl.control.remains import not_running  # slow to load

        raise not_running(name, run_dir) from None


def look(run_dir: Path, known: dict[str, Any], answer_seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Return the configuration, every started process and what the controller knows; raises NotRunning.

    answer_seconds: that supervisord has; without its answer, processes that are ready are all that is known.
    """
    # Not what `status` usually needs, and slow to load.
    from asgictl.control.supervisord_client import NotAnswering, Supervisor

    warnings = list(known.get("warnings", ()))
    try:
        slots = Supervisor(run_dir, answer_seconds).processes()
    except NotAnswering as error:
        slots = [{"name": each["process"], "statename": "RUNNING", "pid": each["pid"]} for each in known["ready"]]
        warnings.append(str(error))
    try:
        configuration = json.loads((run_dir / DESCRIPTION).read_text())
    except OSError as error:
        raise NotRunning(f"no description of the instance: {error}") from None
    reports = {report["pid"]: report for report in known["ready"]}
    shown = [
        {"role": name.partition("-")[0], "process": name, "state": slot["statename"], "pid": slot["pid"]}
        for slot in slots
        if (name := slot["name"]) and slot["statename"] != "STOPPED"
    ]
    slotted = {process["pid"] for process in shown}
    shown += [  # gunicorn's workers have no slots
        {"role": report["role"], "process": f"{report['process']}/{pid}", "state": "RUNNING", "pid": pid}
        for pid, report in reports.items()
        if pid not in slotted
    ]
    processes = [_process(each, reports.get(each["pid"], {}), known["figures"].get(each["pid"])) for each in shown]
    threads = configuration["workers"] * configuration["threads"]
    warnings += _warnings(known, processes)
    releases = sorted({each["release"] for each in processes if each["release"]})
    return {
        "version": asgictl.__version__,
        **configuration,
        "processes": processes,
        "ready": known["ready"],
        **{key: known[key] for key in ("requests", "turns", "channels", "shed")},
        "database_connections_at_most": threads,
        "warnings": [*([f"mixed releases: {', '.join(releases)}"] if len(releases) > 1 else []), *warnings],
    }


def _warnings(known: dict[str, Any], processes: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with single processes: those that do not start, and those that have lost Redis."""
    warnings = [
        f"{each['process']} {'is given up, for it does' if 'is_given_up' in each else 'does'} not start: "
        + (each["reason"].rpartition("\n")[2] or "see asgictl logs")
        for each in known["failed"]
        if "is_given_up" in each or any(process["process"] == each["process"] for process in processes)
    ]
    warnings += [
        f"{each['process']} last heard of Redis {each['redis_silent_seconds']:.0f} s ago"
        for each in processes
        if each.get("redis_silent_seconds", 0.0) > REDIS_SILENT_SECONDS
    ]
    warnings += [
        f"{each['process']} has no more open files and closes connections: raise ulimit -n"
        for each in processes
        if each.get("full")
    ]
    return warnings


def _process(process: dict[str, Any], report: dict[str, Any], figures: dict[str, Any] | None) -> dict[str, Any]:
    import psutil

    uptime = rss = None
    try:
        found = psutil.Process(process["pid"])
        uptime, rss = time.time() - found.create_time(), found.memory_info().rss
    except psutil.Error:  # it has none, or has just ended
        pass
    busy = figures["busy_threads"] / report["threads"] if figures and "threads" in report else None
    return {
        **process,
        "ready": bool(report),
        "release": report.get("release", ""),
        "uptime_seconds": uptime,
        "rss_bytes": rss,
        "busy_share": busy if busy is None else min(busy, 1.0),
        **{key: value for key, value in (figures or {}).items() if key != "busy_threads"},
    }


def summary(status: dict[str, Any]) -> str:
    """Return what `start` ends with and `status` begins with."""
    split = status["mode"] == "split"
    first = f"asgictl {status['version']} · {status['mode']} · {status['target']} · {status['url']}"
    threads = f"({status['threads']} thread{'s' if status['threads'] > 1 else ''})"
    counts = [f"redis 1 {status['redis']}" if status["redis"] != "none" else "groups in memory"]
    for role in ("interface", "worker") if split else ("server",):
        expected = status["workers" if role != "interface" else "interfaces"]
        ready = sum(report["role"] == role for report in status["ready"])
        counted = f"{expected} ready" if ready == expected else f"{ready} of {expected} ready"
        host = f" on {status['server']}" if role != "worker" else ""
        counts.append(f"{role} {counted}" + (f" {threads}" if role != "interface" else "") + host)
    kinds = {report["websocket"] for report in status["ready"] if "websocket" in report}
    kind = min(kinds, default="none")
    survive = ", live as long as their worker" if kind == "ASGI" else ", survive deploys"
    fate = "" if kind == "none" else survive if split else ", closed by a deploy"
    if files := min((report["file_limit"] for report in status["ready"] if "file_limit" in report), default=0):
        counts.append(f"files at most {files:,} a process")
    lines = [first, f"  {'   '.join(counts)}", f"  WebSockets: {kind}{fate}"]
    lines += [f"  shed: {times} × {reason}" for reason, times in sorted(status["shed"].items())]
    lines += [f"  warning: {warning}" for warning in status["warnings"]]
    return "\n".join(lines)


def tables(status: dict[str, Any]) -> "list[RenderableType]":
    """Return what `status` shows beneath the summary, for a rich Console."""
    processes = [
        (
            *(each["process"], _state(each), each["pid"] or "", _span(each["uptime_seconds"])),
            _shown("{:.0%}", each.get("cpu_share")),
            _shown("{:.0f} MiB", each["rss_bytes"] and each["rss_bytes"] / (1 << 20)),
            *(_shown("{:.0%}", each["busy_share"]), *_open(each), each["release"]),
        )
        for each in status["processes"]
    ]
    channels = [
        (name, each["depth"], each["taken"], _span(each["oldest_seconds"])) for name, each in status["channels"].items()
    ]
    times = [_timing(kind, status[kind]) for kind in ("requests", "turns") if status[kind]]
    shown = {
        "process state pid up CPU RSS busy runs HTTP WebSockets release": processes,
        "channel events taken oldest_waits": channels,
        "last_10_s a_second p50_ms p95_ms p99_ms p50_wait p50_run in_all": times,
    }
    most = f"database connections at most: {status['database_connections_at_most']} (workers × threads)"
    return [*(_table(columns, rows) for columns, rows in shown.items() if rows), most]


def _table(columns: str, rows: list[tuple[Any, ...]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns.split()):
        is_text = index == 0 or column in {"state", "release"}
        table.add_column(column.replace("_", " "), justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # no markup: a release may hold anything
    return table


def _state(process: dict[str, Any]) -> str:
    """supervisord's word, unless ours says more: alive, ready and busy are three things."""
    if process.get("heard_seconds_ago", 0) > SILENT_SECONDS:
        return f"silent {process['heard_seconds_ago']:.0f} s"
    if not process["ready"]:
        return str(process["state"])
    return "busy" if process.get("running") else "ready"


def _open(process: dict[str, Any]) -> list[object]:
    """What runs, and what is open: only what the role can have."""
    roles = {"running": {"worker", "server"}, "http": {"interface", "server"}, "websockets": {"interface", "server"}}
    return [process.get(figure, "") if process["role"] in having else "" for figure, having in roles.items()]


def _timing(kind: str, timing: dict[str, Any]) -> tuple[object, ...]:
    quantiles = [timing[key] for key in ("p50_seconds", "p95_seconds", "p99_seconds")]
    quantiles += [timing[part]["p50_seconds"] for part in ("wait", "run")]
    milliseconds = (_shown("{:.1f}", value and value * 1000) for value in quantiles)
    return (kind, f"{timing['per_second']:.1f}", *milliseconds, timing["total"])


def _shown(form: str, value: float | None) -> str:
    return "–" if value is None else form.format(value)


def _span(seconds: float | None) -> str:
    """Return seconds as a person reads them: 3.2 s, 4 min, 5 h, 6 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return _shown("{:.1f} s", seconds)
