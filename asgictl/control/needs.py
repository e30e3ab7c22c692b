"""What needs an operator's attention, and what to do: decided from a status, without I/O."""

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from asgictl.control.status_schema import Process, Status
from asgictl.telemetry.controller_client import PUSH_SECONDS

WAIT_SECONDS = 10.0  # that an event may wait for a worker
SILENT_SECONDS = 3 * PUSH_SECONDS  # without a report: a process that stands still, or whose code lets no thread run
REDIS_SILENT_SECONDS = 3.0  # Redis answers each process once a second
EXIT_SECONDS = 60.0  # for which an end that nobody asked for is told first
CLOCK_SECONDS = 2.0  # by which the clocks of hosts may differ
UNREAD = (
    "no worker serves this channel: start one, as with --only-channels '{}', or deploy a TARGET that has this consumer"
)
DRAINING = "STOPPING"  # as supervisord calls it
RUNNING = {"RUNNING", DRAINING}  # its words for what is as it should be


def needs(status: Status, failed: list[dict[str, Any]]) -> list[str]:
    """Return one line for each: what is wrong, then what to do. failed: reports of processes that did not start."""
    names, tried = {each["process"] for each in status["processes"]}, {each["process"] for each in failed}
    found = [
        f"{each['process']} {'is not started again: it did' if 'is_given_up' in each else 'does'} not start:"
        f" {each['reason'].rpartition(chr(10))[2] or 'see asgictl logs'}; fix that, then asgictl reload"
        for each in failed
        if "is_given_up" in each or each["process"] in names
    ]
    for process in status["processes"]:
        found += _of_process(process, has_ended=process["process"] not in tried)
    if status["requests"] is not None:  # else nobody knows what is ready
        found += _missing(status)
    found += unserved(status["channels"]).values()
    if len(releases := _releases(status)) > 1:
        shown = [f"{release} ({', '.join(sorted(hosts))})" if hosts else release for release, hosts in releases.items()]
        cure = "deploy one of them everywhere" if any(releases.values()) else "asgictl reload makes them one"
        found.append(f"mixed releases: {', '.join(shown)}; {cure}")
    return found


def named(process: Process) -> str:
    """Return a process's name, and where many are asked its host."""
    return f"{process['process']} on {process['host']}" if "host" in process else process["process"]


def _releases(status: Status) -> dict[str, set[str]]:
    """Return the releases that are ready, and on which hosts, where those are known."""
    found: dict[str, set[str]] = {}
    for process in sorted(status["processes"], key=lambda each: each["release"]):
        if process["release"] and process["state"] != DRAINING:
            found.setdefault(process["release"], set()).update({process["host"]} if "host" in process else ())
    return found


def unserved(channels: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for each channel whose events have waited too long, by its name."""
    found = {}
    for name, channel in channels.items():
        if channel["oldest_seconds"] > WAIT_SECONDS:
            what = (
                "asgictl scale starts more workers, or give its slow paths a pool and workers of their own"
                if channel["readers"]
                else UNREAD.format(name)
            )
            found[name] = f"{name}: an event has waited for {channel['oldest_seconds']:.0f} s; {what}"
    return found


def unread(channels: Iterable[str]) -> list[str]:
    """Return a line for each of the application's channels that no worker serves."""
    return [f"{name}: {UNREAD.format(name)}" for name in sorted(channels)]


def differing_clocks(ahead: Mapping[str, float]) -> list[str]:
    """Return a line if clocks differ. ahead: by how many seconds each host's is ahead of that of Redis."""
    ordered = sorted({**ahead, "Redis": 0.0}.items(), key=itemgetter(1))
    (slow, least), (fast, most) = ordered[0], ordered[-1]
    if most - least <= CLOCK_SECONDS:
        return []
    return [f"the clocks of {slow} and {fast} differ by {most - least:.1f} s; have NTP set them"]


def is_wrong(process: Process) -> bool:
    """Whether a process is not as it should be."""
    is_up = process["state"] in RUNNING or process["ready"]  # which for its first second is STARTING
    return not is_up or is_silent(process)


def is_silent(process: Process) -> bool:
    """Whether a process has not reported for some time."""
    return process.get("heard_seconds_ago", 0.0) > SILENT_SECONDS


def _of_process(process: Process, *, has_ended: bool) -> Iterator[str]:
    name, last = named(process), process["last_exit"]
    if has_ended and last and last["seconds_ago"] < EXIT_SECONDS and last["status"] != 0:
        times = f" for the {_ordinal(process['restarts'])} time" if process["restarts"] > 1 else ""
        yield f"{name} ended {last['seconds_ago']:.0f} s ago{times}: {last['reason']}; asgictl logs {name}"
    if is_silent(process):
        what = "it or its host is gone, or cut off from Redis" if "host" in process else "--silent-seconds will end it"
        yield f"{name} has not reported for {process['heard_seconds_ago']:.0f} s; {what}"
    if process.get("redis_silent_seconds", 0.0) > REDIS_SILENT_SECONDS:
        yield f"{name} last heard from Redis {process['redis_silent_seconds']:.0f} s ago; check that Redis answers"
    if process.get("full"):
        yield f"{name} has reached its open file limit and closes connections; raise ulimit -n"


def _missing(status: Status) -> Iterator[str]:
    """Say which roles lack processes that are ready."""
    split = status["mode"] == "split"
    expected = (
        {"interface": status["interfaces"], "worker": status["workers"]} if split else {"server": status["workers"]}
    )
    is_local = not any("host" in process for process in status["processes"])
    for role, count in expected.items():
        ready = sum(report["role"] == role for report in status["ready"])
        if ready < count:
            cure = f"asgictl logs {role}, asgictl reload" if is_local else "start one with this --redis and --name"
            yield f"{ready} of {count} {role}s are ready; {cure}"


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number // 10 % 10 == 1 else endings.get(number % 10, 'th')}"
