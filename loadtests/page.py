"""report.html: one file that needs nothing else, to be understood at a glance."""

import math
from html import escape
from pathlib import Path

from asgictl.loadtests.curve import Curve, holds
from asgictl.loadtests.plots import ROLES, curves, due, plots
from asgictl.loadtests.report import Finding, Report, figure, milliseconds
from asgictl.loadtests.run import Happening
from asgictl.loadtests.scenarios import Scenario
from asgictl.loadtests.verdicts import Answer, reach

TEMPLATE = Path(__file__).with_name("report.html")
WIDEST = math.log(16)  # the scale's ends; what is beyond stands at the end
MEANINGS = {
    "interface": "holds the connections of split, and forwards what arrives",
    "worker": "runs the application in split",
    "redis": "carries events between the two",
    "server": "holds connections and runs the application, in-process and with others; the master holds none",
    "controller": "starts and watches the others: supervisord, and asgictl's own",
    "database": "keeps the rows, of one side after the other",
}
USERS = {
    "Hello": "get a page",
    "Noted": "get a page that writes down who asked",
    "Mixed": "get pages, 1 in 20 of them slow; times are those of the others",
    "DjangoWriter": "send a form",
    "Echo": "say something on a WebSocket, and hear it back",
    "NotedEcho": "say something on a WebSocket that is written down, and hear it back",
    "Room": "say something in a room of four WebSockets, and hear it there",
    "Returning": "drop their WebSockets at one moment, and connect again",
    "Idle": "hold a WebSocket open",
    "Listener": "hear a chat room on a WebSocket",
    "Talker": "speaks there",
}


def page(report: Report, curve: Curve | None = None) -> str:
    """Return the report as HTML; of nothing but a curve where there is one."""
    names = [side.name for side in report.comparison.sides]
    alerts = [line for line in report.conditions() if "DID NOT START" in line or line.startswith("INTERRUPTED")]
    alerts += report.alerts()
    parts = {
        "OVERVIEW": "",
        "SUMMARY": escape(report.summary()),
        "ALERTS": "".join(f'<p class="alert">{escape(line)}</p>' for line in alerts),
        "LEGEND": "".join(
            f'<li><span class="key" style="--key:var(--side-{number})">{escape(text)}</span></li>'
            for number, text in enumerate(report.sides())
        ),
        "FIRST": escape(names[0]),
        "OTHER": escape(names[1]),
        "ROWS": "".join(_row(report, found, each) for found in report.findings for each in found.answers),
        "SCENARIOS": "".join(_section(report, found) for found in report.findings),
        "ROLES": _legend("role", {role: f"{role}: {MEANINGS[role]}" for role in ROLES}),
        "CONDITIONS": "".join(f"<li>{escape(line)}</li>" for line in report.conditions()),
    }
    parts |= {"OVERVIEW": " hidden", "SUMMARY": escape(curve.words()), "SCENARIOS": _curve(curve)} if curve else {}
    text = TEMPLATE.read_text()
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    return text


def _curve(curve: Curve) -> str:
    """A section of a curve: its plots, and every step."""
    climbs = {name: climb.steps for name, climb in curve.climbs.items()}
    rows, names, colours = [], [], []
    for colour, (name, steps) in enumerate(climbs.items()):
        for run in sorted(steps, key=due):
            within = "yes" if holds(run, curve.limit_seconds) else run.error or "no"
            names.append(name)
            colours.append(colour)
            rows.append([
                ("due", f"{due(run):,.0f}/s"), ("done", f"{run.rate:,.0f}/s"), ("p50", figure("p50", [run])),
                ("p99", figure("p99", [run])), ("within the limit", within), ("CPU each", figure("cost", [run])),
                ("memory", f"{sum(run.memory.values()):,.0f} MiB"), ("disturbed", "; ".join(run.contention) or "–"),
            ])  # fmt: skip
    shown = "".join(f"<figure>{each}</figure>" for each in curves(climbs, curve.scenario.unit, curve.limit_seconds))
    return (
        f"<section><h2>{curve.scenario.name}</h2><p class='question'>{escape(curve.scenario.question)}</p>"
        f"<div class='plots'>{shown}</div>{_table(names, rows, colours) if rows else ''}</section>"
    )


def _legend(kind: str, names: dict[str, str]) -> str:
    return "".join(
        f'<span class="key" style="--key:var(--{kind}-{key})">{escape(name)}</span>' for key, name in names.items()
    )


def _colour(report: Report, each: Answer) -> str:
    """The winner's, as a style."""
    names = [side.name for side in report.comparison.sides]
    return f"--key:var(--{f'side-{names.index(each.winner)}' if each.winner else 'soft'})"


def _row(report: Report, found: Finding, each: Answer) -> str:
    return (
        f'<tr style="{_colour(report, each)}"><th scope="row">'
        f'<a href="#{each.scenario}">{escape(report.title(each))}</a></th>'
        f'<td class="words">{escape(each.words)}{" <sup>†</sup>" if each.notes else ""}</td>'
        f'<td class="scale">{_scale(each)}</td><td class="n" data-title="ahead by">{escape(reach(each))}</td>'
        + "".join(
            f'<td class="n" data-title="{"" if ":" in text else escape(side)}">{escape(text)}</td>'
            for side, text in zip((each.first, each.other), report.headlines(found, each), strict=True)
        )
        + "</tr>"
    )


def _scale(each: Answer) -> str:
    """A dot between "the other is ahead" and "the first is ahead", on a log scale; around it the 95% interval."""
    if math.isnan(each.factor):
        return ""
    ends = (each.low or 1 / math.inf, min(each.high, math.exp(WIDEST)))
    dot, left, right = (50 + 50 * max(-1.0, min(1.0, _log(end) / WIDEST)) for end in (each.factor, *ends))
    return (
        f'<i class="band" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<i class="dot" style="left:{dot:.1f}%"></i>'
    )


def _log(factor: float) -> float:
    return math.log(factor) if factor > 0 else -math.inf


def _section(report: Report, found: Finding) -> str:
    scenario = found.scenario
    said = "".join(
        f'<p class="verdict" style="{_colour(report, each)}">'
        + (f"{each.happening}: " if each.happening not in ("", scenario.name) else "")
        + f"{escape(each.words)} <small>({each.rounds} rounds)</small></p>"
        + "".join(f'<p class="note">† {escape(note)}</p>' for note in each.notes)
        for each in found.answers
    )
    load = f"{scenario.count:,} users {_kinds(scenario)}"
    if "Talker" in scenario.users:
        load += f"; {scenario.rate:g} messages a second"
    elif scenario.rate:
        load += (f"; each begins once in {scenario.count / scenario.rate:.3g} s, {scenario.rate:g} a second together, "
                 "and after a failure again when it is next due")  # fmt: skip
    elif scenario.unit != "socket":
        load += "; each begins again as soon as it is answered"
    shown = "".join(f"<figure>{plot}</figure>" for plot in plots(found.runs, scenario.unit))
    return (
        f'<section id="{scenario.name}"><h2>{scenario.name}</h2><p class="question">{escape(scenario.question)}</p>'
        f"{said}{_figures(found)}{_happenings(found)}<div class='plots'>{shown}</div>"
        f"<p class='load'>Load: {escape(load)}</p></section>"
    )


def _kinds(scenario: Scenario) -> str:
    """Say what a scenario's users do."""
    if not scenario.users:
        return "of the locustfile"
    shares = "all" if len(scenario.users) == 1 else "half each" if "Talker" not in scenario.users else "all but one"
    return f"({shares}: {'; '.join(USERS[name] for name in scenario.users)})"


def _figures(found: Finding) -> str:
    """The figures of all sides, one under the other; of users who noticed where _happenings does not say it."""
    unit = found.scenario.unit
    wanted = {"rate": f"{unit}s", "p50": "p50", "p99": "p99", "cost": "CPU each", "memory": "memory"}
    if unit == "socket":
        wanted = {"kib": "memory each"}
    if not found.scenario.happenings:
        wanted |= {"lost": "users who noticed", "gap": "longest without service"}
    if "Noted" in found.scenario.users:
        wanted["twice"] = "ran twice"
    shown = [(number, name) for number, (name, runs) in enumerate(found.runs.items()) if runs]
    rows = [[(title, figure(metric, found.runs[name])) for metric, title in wanted.items()] for _, name in shown]
    return _table([name for _, name in shown], rows, [number for number, _ in shown])


def _happenings(found: Finding) -> str:
    """What was done to each side, and what of it was noticed, in all of its rounds."""
    names, rows = [], []
    for number, (name, runs) in enumerate(found.runs.items()):
        for kind in found.scenario.happenings:
            felt = [each for run in runs for each in run.happenings if each.kind == kind]
            if felt:
                names.append((number, name))
                rows.append([("done in each round", felt[0].note or felt[0].way or kind), *_felt(felt)])
    return _table([name for _, name in names], rows, [number for number, _ in names]) if rows else ""


def _felt(felt: list[Happening]) -> list[tuple[str, str]]:
    """What users noticed of something in all rounds; dashes where it was not done, or not to the end."""
    happened = all(each.at is not None for each in felt)
    figures = {
        "users who noticed": sum(each.affected for each in felt),
        "requests failed": sum(each.requests for each in felt),
        "sockets closed": sum(each.closed for each in felt),
        "longest without service": milliseconds(max(each.gap for each in felt)),
    }
    return [(title, str(figure) if happened else "–") for title, figure in figures.items()]


def _table(names: list[str], rows: list[list[tuple[str, str]]], colours: list[int] | None = None) -> str:
    """A table of (title, figure), each row a side's; where it is narrow each figure has its title beside it."""
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in rows[0])
    body = "".join(
        f'<tr><th scope="row"><span class="key" style="--key:var(--side-{colour})">{escape(name)}</span></th>'
        + "".join(f'<td data-title="{escape(title)}">{escape(text)}</td>' for title, text in row)
        + "</tr>"
        for name, row, colour in zip(names, rows, colours or range(len(names)), strict=True)
    )
    return f'<div class="figures"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
