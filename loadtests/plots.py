"""Plots as SVG that stands within a page: its colours are the page's, so that light and dark both work."""

import io
import math
import re
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from asgictl.loadtests.run import PERCENTILES, Run

ROLES = ("interface", "worker", "redis", "controller", "server", "database")
# matplotlib writes colours out: these stand for the page's.
INK, SOFT, LINE = "#010101", "#020202", "#030303"
SIDES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
ROLE_COLOURS = {role: f"#0b000{number}" for number, role in enumerate(ROLES, 1)}
PAGE = {
    INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)",
    **{colour: f"var(--side-{number})" for number, colour in enumerate(SIDES)},
    **{colour: f"var(--role-{role})" for role, colour in ROLE_COLOURS.items()},
}  # fmt: skip
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.size": 10, "text.color": INK, "axes.labelcolor": SOFT, "axes.edgecolor": LINE,
    "xtick.color": SOFT, "ytick.color": SOFT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6, "axes.titlesize": 11, "axes.titlelocation": "left",
    "svg.hashsalt": "asgictl", "axes.axisbelow": True, "axes.titlepad": 16, "xtick.major.size": 0,
    "ytick.major.size": 0, "font.family": "sans-serif",
}  # fmt: skip
SIZE = (4.6, 2.7)
Sides = dict[str, list[Run]]


def plots(sides: Sides, unit: str) -> list[str]:
    """Return the plots of a scenario's runs, by side: what there is of rate, latency, CPU and memory."""
    drawn = []
    if any(run.percentiles for runs in sides.values() for run in runs):
        drawn = [
            _draw("rate over time", _over_time, sides, f"{unit}s a second", 0, 1),
            _draw("slowest 1% over time", _over_time, sides, "p99, ms", 3, 1e3),
            _draw("latency by percentile", _percentiles, sides),
        ]
    if any(run.cpu for runs in sides.values() for run in runs):
        drawn.append(_draw(f"CPU for each {unit}, by role", _roles, sides, "cpu", "µs"))
    return [*drawn, _draw("memory by role", _roles, sides, "memory", "MiB (PSS)")]


def curves(sides: Sides, unit: str, limit_seconds: float) -> list[str]:
    """Return the plots of a load that rose in steps, by side: latency, CPU and memory at each rate."""
    offered = f"{unit}s a second that were due"
    return [
        _draw(
            "latency by load",
            _by_load,
            sides,
            offered,
            "p99, ms",
            lambda run: run.metric("p99") * 1e3,
            limit_seconds * 1e3,
        ),
        _draw(
            "CPU by load", _by_load, sides, offered, "cores used", lambda run: sum(run.cpu.values()) * run.rate / 1e6
        ),
        _draw("memory by load", _by_load, sides, offered, "MiB (PSS)", lambda run: sum(run.memory.values())),
    ]


def _by_load(
    axes: Axes, sides: Sides, across: str, up: str, figure: Callable[[Run], float], limit: float | None = None
) -> None:
    """A point for each step of a side; a dashed line is the limit."""
    for colour, runs in zip(SIDES, sides.values(), strict=False):
        found = sorted((due(run), figure(run)) for run in runs if not run.error)
        axes.plot([rate for rate, _ in found], [value for _, value in found], color=colour, lw=1.8, marker="o", ms=4)
    if limit is not None:
        axes.axhline(limit, color=INK, lw=1, ls=(0, (3, 3)))
        _log(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def due(run: Run) -> float:
    """Return how many starts a second were due."""
    return (run.done + run.wrong) / len(run.seconds) if run.seconds else run.rate


def _draw(title: str, draw: Any, *arguments: Any) -> str:
    with rc_context(STYLE):  # type: ignore[arg-type]
        chart = Figure(SIZE, layout="constrained")
        axes = chart.add_subplot(title=title)
        draw(axes, *arguments)
        text = io.StringIO()
        chart.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, page in PAGE.items():
        svg = svg.replace(colour, page)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # the page's typeface
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg role="img" aria-label="{title}" viewBox="\1">', svg, count=1
    )


def _over_time(axes: Axes, sides: Sides, label: str, field: int, scale: float) -> None:
    """A line for each side, the median of its rounds; around it what they span."""
    for colour, runs in zip(SIDES, sides.values(), strict=False):
        seconds = list(zip(*(run.seconds for run in runs if run.seconds), strict=False))
        found = [[run[field] * scale for run in second if run[field] is not None] for second in seconds]
        _line(axes, colour, [(at + 0.5, values) for at, values in enumerate(found) if values])
    happened: defaultdict[str, list[float]] = defaultdict(list)
    for each in (each for runs in sides.values() for run in runs for each in run.happenings):
        happened[each.kind] += [] if each.at is None else [each.at]
    for kind, times in happened.items():
        if times:
            axes.axvline(median(times), color=INK, lw=1, ls=(0, (3, 3)))
            axes.text(median(times), 1, kind, va="bottom", color=INK, size=8, transform=axes.get_xaxis_transform())
    if field:
        _log(axes)
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("seconds into the run")
    axes.set_ylabel(label)


def _percentiles(axes: Axes, sides: Sides) -> None:
    """Percentiles on a log axis: each step to the right is a tenth of the requests."""
    shown = PERCENTILES[:-1]
    places = [-math.log10(1 - percent / 100) for percent in shown]
    for colour, runs in zip(SIDES, sides.values(), strict=False):
        found = zip(*(run.percentiles for run in runs if run.percentiles), strict=False)
        _line(axes, colour, [(at, [1e3 * each for each in values]) for at, values in zip(places, found, strict=False)])
    ticks = [
        (place, percent) for place, percent in zip(places, shown, strict=True) if percent in {50, 90, 99, 99.9, 99.99}
    ]
    axes.set_xlabel("of the answers")
    axes.set_ylabel("took at most, ms")
    axes.set_xticks([place for place, _ in ticks], [f"{percent:g}%" for _, percent in ticks])
    _log(axes)


def _line(axes: Axes, colour: str, found: list[tuple[float, list[float]]]) -> None:
    """Through the medians of what the rounds have at each place, with what they span around it."""
    if found:
        places, values = zip(*found, strict=True)
        low, high = [min(each) for each in values], [max(each) for each in values]
        axes.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(places, [median(each) for each in values], color=colour, lw=1.8)


def _log(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axes.get_ylim()
    if math.log10(high / low) < 1.2:  # too few powers of ten to read it by
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
        )
        if math.log10(high / low) < 0.5:
            axes.set_ylim(low / 2, high * 2)
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())


def _roles(axes: Axes, sides: Sides, field: str, unit: str) -> None:
    """A bar for each side, made of its roles; the total stands at its end."""
    totals, shown = [], {name: runs for name, runs in sides.items() if runs}
    for row, runs in enumerate(shown.values()):
        start = 0.0
        for role in ROLES:
            held = [getattr(run, field).get(role, 0.0) for run in runs if not run.error]
            if held and (size := median(held)):
                axes.barh(row, size, left=start, height=0.5, color=ROLE_COLOURS[role])
                start += size
        totals.append(start)
        axes.text(start, row, f"  {start:,.0f}", va="center", color=INK)
    axes.set_xlabel(unit)
    axes.set_yticks(range(len(shown)), list(shown), color=INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, max([*totals, 1e-9]) * 1.2)
    axes.grid(axis="y", visible=False)
