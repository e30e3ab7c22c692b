"""The arithmetic of bars, without I/O."""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from statistics import median, quantiles

from benchmarks.deploy_load import Counts

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured of an absolute bar: a figure, the most that it may be, and what else is worth knowing."""

    name: str
    figure: float
    at_most: float
    unit: str
    note: str = ""

    @property
    def met(self) -> bool:
        return self.figure <= self.at_most

    def __str__(self) -> str:
        verdict = "met" if self.met else "NOT met"
        return f"{self.name:<32}{self.figure:>9.2f}{self.at_most:>9.2f} {self.unit:<6}{verdict:<9}{self.note}".rstrip()


def latency(split: list[list[float]], inprocess: list[list[float]]) -> Reading:
    """Compare the seconds that requests took, run by run: the median of the differences of neighbouring medians."""
    ours, theirs = ([median(run) * 1e3 for run in runs] for runs in (split, inprocess))
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    note = f"{min(differences):.2f}–{max(differences):.2f}; split {median(ours):.2f}, in-process {median(theirs):.2f}"
    return Reading("latency", median(differences), 0.30, "ms", note)


def idle(before: float, after: float, sockets: int) -> Reading:
    """Share what an interface grew by, in bytes, among the sockets that it holds."""
    note = f"{sockets} sockets, {before / MIB:.1f} → {after / MIB:.1f} MiB"
    return Reading("idle", (after - before) / 1024 / sockets, 14, "KiB", note)


def layer_latency(ours: list[float], theirs: list[float]) -> Reading:
    """Compare the medians of what messages took from send to receive, in seconds, run by run."""
    note = f"ours {median(ours) * 1e3:.2f} ms, channels_redis core {median(theirs) * 1e3:.2f}"
    return Reading(
        "layer-latency", median(mine / other for mine, other in zip(ours, theirs, strict=True)), 0.7, "x", note
    )


def memberships(before: float, after: float, count: int, groups: int) -> Reading:
    """Share what a process grew by, in bytes, among memberships."""
    return Reading("memberships", (after - before) / 1024 / count, 1, "KiB", f"{count} members in {groups} groups")


def slow_neighbour(alone: list[float], beside: list[float]) -> Reading:
    """Compare the longest of fast requests, in seconds, without a slow one and beside it."""
    note = f"longest of {len(alone)} and {len(beside)}: {max(alone) * 1e3:.1f} → {max(beside) * 1e3:.1f} ms"
    return Reading("slow-neighbour", (max(beside) - max(alone)) * 1e3, 250, "ms", note)


def growth(name: str, before: dict[str, float], peak: dict[str, float], at_most: float, note: str = "") -> Reading:
    """Find the process that grew most, of bytes by its name; at_most in MiB."""
    grown = {process: (peak[process] - held) / MIB for process, held in before.items()}
    most = max(grown, key=lambda process: grown[process])
    return Reading(name, grown[most], at_most, "MiB", f"{most}{note}")


def refusals(counts: dict[tuple[int, bool], int], lost: int) -> Reading:
    """Count what overload may not do: answers by status and whether they say when to try again, and lost clients.

    Raises ValueError unless some requests were served and some refused: it was no overload then, or no service.
    """
    served, refused = counts.get((200, False), 0), counts.get((503, True), 0)
    note = f"{served} served, {refused} refused, {lost} clients lost; {dict(counts)}"
    if not served or not refused:
        raise ValueError(f"no overload, or no service: {note}")
    return Reading("overload answers", sum(counts.values()) - served - refused + lost, 0, "", note)


def recovery(before: list[float], after: list[float]) -> Reading:
    """Compare the medians of the seconds that one client's requests took, before and after."""
    usual, now = median(before) * 1e3, median(after) * 1e3
    return Reading("overload recovery", now / usual, 2, "times", f"{usual:.2f} → {now:.2f} ms")


def events(late: list[float], sent: int) -> Reading:
    """The longest of the seconds from an event's being sent to its being read; one that is missing is never read."""
    note = f"median {median(late) * 1e3:.2f} ms of {len(late)}" if late else ""
    return Reading("events", max(late) * 1e3 if len(late) == sent else float("inf"), 50, "ms", note)


def long_polls(taken: list[float], sent: int) -> Reading:
    """How many of the requests were not answered."""
    return Reading("long-polls", sent - len(taken), 0, "", f"{len(taken)} answered, the last after {max(taken):.1f} s")


def background(late: dict[int, list[float]], sent: int) -> Reading:
    """Count the messages that were lost, early or repeated, of the seconds by which the runs of each were late."""
    every = [seconds for runs in late.values() for seconds in runs]
    wrong = sent - len(late) + sum(len(runs) != 1 or min(runs) < 0 for runs in late.values())
    note = f"{len(late)} of {sent} ran, {min(every, default=0):.3f} to {max(every, default=0):.3f} s late"
    return Reading("background", wrong, 0, "", note)


def soak(before: dict[str, float], after: dict[str, float], wrong: list[str]) -> list[Reading]:
    """What went wrong, and by how much the process that grew most is above what it held in bytes before."""
    growth = {name: (after.get(name, float("inf")) / held - 1) * 100 for name, held in before.items()}
    most = max(growth, key=growth.__getitem__)
    sizes = ", ".join(f"{name} {before[name] / MIB:.1f} → {after.get(name, 0) / MIB:.1f} MiB" for name in before)
    return [
        Reading("soak errors", len(wrong), 0, "", "; ".join(wrong[:3])),
        Reading("soak memory", growth[most], 5, "%", f"{most}; {sizes}"),
    ]


def neighbours(
    name: str, closed: int, wrong: list[str], failed: int, stall_seconds: float, at_most: float
) -> list[Reading]:
    """Judge what neighbours of a fault noticed: their sockets closed, output wrong, requests failed, longest stall."""
    return [
        Reading(f"{name}: closed", closed, 0, ""),
        Reading(f"{name}: wrong", len(wrong), 0, "", "; ".join(wrong[:3])),
        Reading(f"{name}: stall", stall_seconds, at_most, "s", f"{failed} requests failed"),
    ]


def hostile(
    name: str,
    alone: tuple[list[float], list[float]],
    beside: tuple[list[float], list[float]],
    before: dict[str, float],
    peak: dict[str, float],
    note: str,
) -> list[Reading]:
    """Judge attackers: memory of the process that grew most, and by how much neighbours took longer, in seconds.

    alone, beside: what requests took, and echoes.
    """
    found = [growth(f"{name}: memory", before, peak, 64, f"; {note}")]
    for what, usual, now in zip(("requests", "echoes"), alone, beside, strict=True):
        was, is_now = (quantiles(times, n=100)[98] * 1e3 for times in (usual, now))
        text = f"p99 {was:.1f} → {is_now:.1f}, longest {max(now) * 1e3:.0f} ms of {len(now)}"
        found.append(Reading(f"{name}: {what}", is_now - was, 100, "ms", text))
    return found


def noticed(name: str, counts: dict[str, int], wrong: list[str], stall_seconds: float, at_most: float) -> list[Reading]:
    """Judge what clients of a Redis noticed that was away: things that must not be, by kind, and the longest stall."""
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    note = "; ".join([shown, *wrong[:3]])
    return [Reading(name, sum(counts.values()), 0, "", note), Reading(f"{name}: stall", stall_seconds, at_most, "s")]


def deploys(name: str, counts: Counts, may_close: Collection[int]) -> list[Reading]:
    """Judge what deploys failed, and which sockets they closed: with these codes only, and once a deploy each."""
    wrong = sum(times for code, times in counts.closed.items() if code not in may_close) + counts.again
    failed = counts.failed.total() + counts.handshakes_failed if counts.requests else inf  # it did not serve at all
    closed = ", ".join(f"{times} with {code}" for code, times in sorted(counts.closed.items())) or "none"
    return [
        Reading(f"{name}: failed", failed, 0, "", shown(counts)),
        Reading(f"{name}: closed", wrong, 0, "", f"{closed}; {counts.again} again in the same deploy"),
    ]


def shown(counts: Counts) -> str:
    """Say what failed of how many, why, and how late the clients were themselves."""
    why = ", ".join(f"{times} {error}" for error, times in counts.errors.most_common())
    late = f"the load was late by {counts.lag_seconds:.2f} s at most"
    return f"of {counts.requests.total()} requests, {counts.handshakes} handshakes; {late}; {why}".rstrip("; ")


def handover(
    counts: dict[str, int], note: str, stall_seconds: float, beside_seconds: float, in_flight: float
) -> list[Reading]:
    """Judge changes under load: what must not be, by kind, and the longest stall, of which another server has its own.

    in_flight: the least share of sockets that waited for something when a change began.
    """
    shown = f"{stall_seconds:.2f}; uvicorn {beside_seconds:.2f}"
    return [
        *(Reading(f"handover: {kind}", count, 0, "") for kind, count in counts.items()),
        Reading("handover: stall", stall_seconds - beside_seconds, 0.5, "s", shown),
        Reading("handover: at rest", 100 - 100 * in_flight, 10, "%", f"of sockets when a change began; {note}"),
    ]


def handover_crowd(wanted: int, opened: int, closed: int, seconds: float, alone: float, peak: float) -> list[Reading]:
    """Judge a hand-over of many sockets. alone, peak: bytes of the old process before, and of both at most."""
    note = f"{alone / MIB:.1f} → {peak / MIB:.1f} MiB (PSS)"
    return [
        Reading("handover-crowd: closed", wanted - opened + closed, 0, "", f"of {wanted}"),
        Reading("handover-crowd", seconds, 10, "s", "until the old process had ended"),
        Reading("handover-crowd: memory", peak / alone, 1.3, "times", note),
    ]
