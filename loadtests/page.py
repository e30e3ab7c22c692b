"""report.html: one file that needs nothing else, to be understood at a glance."""

import math
from html import escape
from pathlib import Path

from asgictl.loadtests.plots import ROLES, plots
from asgictl.loadtests.report import Finding, Report, figure, headline, spread
from asgictl.loadtests.verdicts import Answer

TEMPLATE = Path(__file__).with_name("report.html")
WIDEST = math.log(16)  # the scale's ends; what is beyond stands at the end


def page(report: Report) -> str:
    """Return the report as HTML."""
    names = [side.name for side in report.comparison.sides]
    alerts = [line for line in report.conditions() if "DID NOT START" in line or line.startswith("INTERRUPTED")]
    parts = {
        "SUMMARY": escape(report.summary()),
        "ALERTS": "".join(f'<p class="alert">{escape(line)}</p>' for line in alerts),
        "LEGEND": _legend("side", {str(number): name for number, name in enumerate(names)}),
        "FIRST": escape(names[0]),
        "OTHER": escape(names[1] if len(names) == 2 else "the other"),
        "ROWS": "".join(_row(report, found, each) for found in report.findings for each in found.answers),
        "SCENARIOS": "".join(_section(report, found) for found in report.findings),
        "CONDITIONS": "".join(f"<li>{escape(line)}</li>" for line in report.conditions()),
    }
    text = TEMPLATE.read_text()
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    return text


def _legend(kind: str, names: dict[str, str]) -> str:
    return "".join(
        f'<span class="key" style="--key:var(--{kind}-{key})">{escape(name)}</span>' for key, name in names.items()
    )


def _colour(report: Report, each: Answer) -> str:
    """The winner's, as a style."""
    names = [side.name for side in report.comparison.sides]
    return f"--key:var(--{f'side-{names.index(each.winner)}' if each.winner else 'soft'})"


def _row(report: Report, found: Finding, each: Answer) -> str:
    first = report.comparison.sides[0].name
    against = f" <small>beside {escape(each.other)}</small>" if len(report.comparison.sides) > 2 else ""
    name = found.scenario.name
    return (
        f'<tr style="{_colour(report, each)}"><th scope="row"><a href="#{name}">{name}</a>{against}</th>'
        f'<td class="words">{escape(each.words)}{" <sup>†</sup>" if each.notes else ""}</td>'
        f'<td class="scale">{_scale(each)}</td><td class="n">{spread(each)}</td>'
        f'<td class="n" data-side="{escape(first)}">{headline(each.metric, found.runs[first])}</td>'
        f'<td class="n" data-side="{escape(each.other)}">{headline(each.metric, found.runs[each.other])}</td></tr>'
    )


def _scale(each: Answer) -> str:
    """A dot between "the other is ahead" and "the first is ahead", on a log scale; around it what the rounds span."""
    if each.verdict is None:
        return ""
    sign = 1 if each.metric == "rate" else -1
    places = [
        50 + 50 * max(-1.0, min(1.0, sign * math.log(ratio) / WIDEST))
        for ratio in (each.verdict.ratio, each.verdict.low, each.verdict.high)
    ]
    left, right = sorted(places[1:])
    return (
        f'<i class="band" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<i class="dot" style="left:{places[0]:.1f}%"></i>'
    )


def _section(report: Report, found: Finding) -> str:
    scenario = found.scenario
    said = "".join(
        f'<p class="verdict" style="{_colour(report, each)}">{escape(each.words)}</p>'
        + "".join(f'<p class="note">† {escape(note)}</p>' for note in each.notes)
        for each in found.answers
    )
    load = f"{scenario.count:,} users ({' and '.join(scenario.users) or 'of the locustfile'})"
    if scenario.unit != "socket":
        what = "messages" if "Talker" in scenario.users else "starts"
        load += f", {scenario.rate:g} {what} a second" if scenario.rate else ", each as fast as it is answered"
    shown = "".join(f"<figure>{plot}</figure>" for plot in plots(found.runs, scenario.unit, scenario.event))
    return (
        f'<section id="{scenario.name}"><h2>{scenario.name}</h2><p class="question">{escape(scenario.question)}</p>'
        f"{said}{_figures(found)}<div class='plots'>{shown}</div><p class='load'>Bars: "
        f"{_legend('role', {role: role for role in ROLES})}</p><p class='load'>Load: {escape(load)}</p></section>"
    )


def _figures(found: Finding) -> str:
    """The figures of all sides, one under the other."""
    unit = found.scenario.unit
    wanted = {"rate": f"{unit}s", "p50": "p50", "p99": "p99", "cost": "CPU each", "lost": "failed or closed"}
    if unit == "socket":
        wanted = {"kib": "memory each", "lost": "failed or closed"}
    if found.scenario.event:
        wanted["gap"] = "longest gap"
    head = "".join(f"<th>{title}</th>" for title in wanted.values())
    rows = "".join(
        f'<tr><th scope="row"><span class="key" style="--key:var(--side-{number})">{escape(name)}</span></th>'
        + "".join(f"<td>{figure(metric, runs)}</td>" for metric in wanted)
        + "</tr>"
        for number, (name, runs) in enumerate(found.runs.items())
    )
    return f'<div class="figures"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
