"""What `asgictl status` shows of a status: from data to lines, without I/O. What is wrong comes first."""

import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from math import floor, log10
from typing import Any, Literal, NamedTuple

from asgictl.control.needs import DRAINING, is_silent, is_wrong, named
from asgictl.control.status_schema import Process, Status, Times
from asgictl.control.table import Column, table

HOLD = {"interface", "server", "worker"}  # roles that hold connections: workers an ASGI application's
LONG_SECONDS = 1.0  # an event that runs for longer is shown
MOST_RUNS = 10  # of these
DIGITS = 2  # that quantiles have: bounds of histograms are a quarter apart
WRONG, HEADING = "wrong", "heading"
ASGI = "ASGI"  # what serves WebSockets: their application, which has no turns
PROCESSES = (  # those of the highest rank go first where there is no room
    *(
        Column("host", is_text=True),
        Column("process", is_text=True),
        Column("state", is_text=True),
        Column("pid"),
        Column("up", 2),
    ),
    *(Column("restarts", 1), Column("CPU", 6), Column("RSS", 7), Column("busy", 8), Column("runs", 5)),
    *(Column("HTTP", 4), Column("sockets", 3), Column("heard", 2), Column("release", 2, is_text=True)),
)
RUNS = Column("running now", is_text=True), Column("for"), Column("what", is_text=True)
EXITS = Column("last exits", is_text=True), Column("pid"), Column("ago"), Column("why", is_text=True)
CHANNELS = (
    *(Column("channel", is_text=True), Column("events"), Column("taken"), Column("oldest waits"), Column("readers")),
)
TIMES = (
    *(Column("last 10 s", is_text=True), Column("a second"), Column("p50 ms"), Column("p95 ms"), Column("p99 ms")),
    *(Column("p50 wait"), Column("p50 run"), Column("in all")),
)


class Line(NamedTuple):
    """style: "", WRONG or HEADING."""

    text: str
    style: str = ""


def page(status: Status, width: int) -> list[Line]:
    """Return what `status` shows in so many columns: no pid and no state is cut."""
    lines, is_asgi = summary(status, width), _websockets(status) == ASGI
    for block in (_processes(status, width), _runs(status, width), _exits(status, width)):
        lines += block
    channels = [
        (name, each["depth"], each["taken"], span(each["oldest_seconds"]), each["readers"])
        for name, each in status["channels"].items()
    ]
    kinds: tuple[Literal["requests", "turns"], ...] = ("requests",) if is_asgi else ("requests", "turns")
    times = [_timing(kind, found) for kind in kinds if (found := status[kind])]
    lines += [*_block(CHANNELS, channels, width), *_block(TIMES, times, width)]
    if not is_asgi:  # which opens as many as it wants to
        most = status["database_connections_at_most"]
        lines += [
            Line(""),
            Line(f"database connections at most: {most} (one for each of --threads, which run sync code)"),
        ]
    return lines


def summary(status: Status, width: int) -> list[Line]:
    """Return what `start` ends with and `status` begins with."""
    what = (status["name"], status["mode"], status["target"], status["url"])
    lines = [Line(" · ".join((f"asgictl {status['version']}", *filter(None, what))))]
    if status["warnings"]:
        lines.append(Line("Needs attention:", WRONG))
        lines += [Line(each, WRONG) for warning in status["warnings"] for each in _wrapped(f"- {warning}", width)]
    lines += [Line(each) for each in _joined(_counts(status), width)]
    lines += [Line(f"  closed when their interface is replaced: {reason}") for reason in _keeps(status)]
    return lines + [Line(f"  rejected: {times} × {reason}") for reason, times in sorted(status["shed"].items())]


def _counts(status: Status) -> Iterator[str]:
    split = status["mode"] == "split"
    if status["redis"] == "none":
        yield "groups in memory"
    else:
        yield f"redis 1 {status['redis']} {status['redis_url']}".rstrip()
    threads = f"({status['threads']} thread{'s' if status['threads'] > 1 else ''})"
    for role in ("interface", "worker") if split else ("server",):
        expected = status["interfaces"] if role == "interface" else status["workers"]
        ready = sum(report["role"] == role for report in status["ready"])
        counted = f"{expected} ready" if ready == expected else f"{ready} of {expected} ready"
        host = f" on {status['server']}" if role != "worker" and status["server"] else ""
        yield f"{role} {counted}" + (f" {threads}" if role != "interface" else "") + host
    if files := min((report["file_limit"] for report in status["ready"] if "file_limit" in report), default=0):
        yield f"files at most {files:,} a process"
    kind = _websockets(status)
    survive = ", live as long as their worker" if kind == ASGI else ", survive deploys"
    fate = " (give Application websocket=)" if kind == "none" else survive if split else ", closed by a deploy"
    yield f"WebSockets: {kind}{fate}"


def _websockets(status: Status) -> str:
    """Return what serves WebSockets."""
    return min((report["websocket"] for report in status["ready"] if "websocket" in report), default="none")


def _keeps(status: Status) -> list[str]:
    """Return why WebSockets cannot move to another interface."""
    kind, keeps = _websockets(status), {report.get("keeps", "") for report in status["ready"]}
    if kind == ASGI and status["mode"] == "split":
        keeps.add("ASGI applications' sockets")
    return [] if kind == "none" else sorted(keeps - {""})


def _processes(status: Status, width: int) -> list[Line]:
    ordered = sorted(status["processes"], key=lambda each: not is_wrong(each))
    rows = [
        (
            *(each.get("host", ""), each["process"], _state(each), each["pid"] or "", span(each["uptime_seconds"])),
            *(each["restarts"] or "", _shown("{:.0%}", each.get("cpu_share"))),
            _shown("{:.0f} MiB", each["rss_bytes"] and each["rss_bytes"] / (1 << 20)),
            *(_shown("{:.0%}", each["busy_share"]), *_open(each)),
            *(span(each.get("heard_seconds_ago")) if "host" in each else "", each["release"]),
        )
        for each in ordered
    ]
    moving = [Line(_hand_over(each)) for each in status["processes"] if each.get("until")]
    return [*_block(PROCESSES, rows, width, wrong=[is_wrong(each) for each in ordered]), *moving]


def _hand_over(process: Process) -> str:
    until = time.strftime("%H:%M:%S", time.localtime(process["until"]))
    return f"{process['process']} hands over: {process['moved']} moved, {process['waiting']} wait, until {until}"


def _runs(status: Status, width: int) -> list[Line]:
    runs = [(run["seconds"], named(each), run["what"]) for each in status["processes"] for run in each.get("runs", [])]
    long = sorted((run for run in runs if run[0] > LONG_SECONDS), reverse=True)
    rows = [(process, span(seconds), what) for seconds, process, what in long[:MOST_RUNS]]
    return _block(RUNS, rows, width)


def _exits(status: Status, width: int) -> list[Line]:
    found = [
        (last["seconds_ago"], each["process"], last) for each in status["processes"] if (last := each["last_exit"])
    ]
    rows = [
        (name, last["pid"], span(ago), last["reason"]) for ago, name, last in sorted(found, key=lambda each: each[0])
    ]
    return _block(EXITS, rows[:MOST_RUNS], width)


def _block(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int, wrong: Sequence[bool] = ()
) -> list[Line]:
    """Return a table behind an empty line, or nothing of none."""
    if not rows:
        return []
    heading, *lines = table(columns, rows, width)
    styles = [WRONG if is_wrong else "" for is_wrong in wrong] or [""] * len(lines)
    return [Line(""), Line(heading, HEADING), *map(Line, lines, styles)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _joined(parts: Iterable[str], width: int) -> list[str]:
    """Return lines of as many parts as have room."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f"   {part}"
        else:
            lines.append(f"  {part}")
    return lines


def _state(process: Process) -> str:
    """supervisord's word, unless ours says more: alive, ready, busy and draining are four things."""
    if is_silent(process):
        return f"silent {process['heard_seconds_ago']:.0f} s"
    if process["state"] == DRAINING:
        return "draining"
    if not process["ready"]:
        return process["state"]
    return "busy" if process.get("running") else "ready"


def _open(process: Process) -> list[object]:
    """What runs, and what is open: only what the role can have."""
    roles = {"running": {"worker", "server"}, "http": HOLD, "websockets": HOLD}
    return [process.get(figure, "") if process["role"] in having else "" for figure, having in roles.items()]


def _timing(kind: str, timing: Times) -> tuple[object, ...]:
    quantiles = [timing["p50_seconds"], timing["p95_seconds"], timing["p99_seconds"]]
    quantiles += [timing["wait"]["p50_seconds"], timing["run"]["p50_seconds"]]
    return (kind, f"{timing['per_second']:.1f}", *map(_milliseconds, quantiles), timing["total"])


def _milliseconds(seconds: float | None) -> str:
    """Return seconds in milliseconds, with the digits that they have."""
    if not seconds:
        return "–"
    places = DIGITS - 1 - floor(log10(seconds * 1000))
    return f"{round(seconds * 1000, places):.{max(places, 0)}f}"


def _shown(form: str, value: Any) -> str:
    return "–" if value is None else form.format(value)


def span(seconds: float | None) -> str:
    """Return seconds as a person reads them: 3.2 s, 4 min, 5 h, 6 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return _shown("{:.1f} s", seconds)
