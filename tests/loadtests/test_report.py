"""The report of a comparison that was made up: the table, report.json, report.html."""

import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser
from rich.console import Console

from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.curve import Climb, Curve
from asgictl.loadtests.page import page
from asgictl.loadtests.report import ONE_ROUND, Report, finite, milliseconds
from asgictl.loadtests.run import Happening, Run
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Side

SIDES = [Side("split", "asgictl start <x>"), Side("in-process", "asgictl start --mode inprocess")]


def made_up(side: str, scenario: str, number: int, **more: Any) -> Run:
    usual: dict[str, Any] = {
        "rate": 1000.0 + number,
        "done": 4000,
        "connections": {"worker": [3, 5]},
        "seconds": [(1000.0, 0, 0.001, 0.01)] * 4,
        "percentiles": [0.001 * 2**step for step in range(9)],
        "cpu": {"worker": 80.0, "redis": 12.5},
        "memory": {"worker": 75.0, "redis": 5.0},
        "generator": 0.4,
    }
    return Run(side, scenario, number, **(usual | more))


def crashed(closed: int) -> list[Happening]:
    return [
        Happening("application", 2.5, "kill -9 of a worker", 5 * closed, closed, max(0, closed - 1), 0.25),
        Happening("master", None, note="has no master among its servers"),
        Happening("redis", 12.5, "kill -9 of Redis"),
    ]


@pytest.fixture
def report() -> Report:
    runs = [
        made_up(side.name, scenario, number, **more)
        for number in (1, 2, 3, 4)
        for side, slow in zip(SIDES, (1, 4), strict=True)
        for scenario, more in (
            ("hello", {"rate": 1000.0 / slow + number}),
            ("idle", {"percentiles": [0.1] * 9, "seconds": [], "cpu": {}, "kib": 20.0 + number / 100}),
            ("crash", {"happenings": crashed(slow - 1)}),
        )
    ]
    scenarios = [SCENARIOS[name] for name in ("hello", "idle", "crash")]
    facts = {side.name: {"processes": {"worker": 2}, "threads": 1} for side in SIDES}
    comparison = Comparison(SIDES, scenarios, 12, 4.0, [0], [1], seed=77, runs=runs, facts=facts)
    return Report(comparison, {"target": "app:app", "database": "PostgreSQL"}, interrupted=False)


def test_a_row_has_both_figures_who_is_ahead_and_the_verdict(report: Report) -> None:
    hello, idle, application, _, master, redis = report.rows()
    assert hello == (
        "hello",
        "1,002/s",
        "252/s",
        "split 3.9 to 4.0×",
        "92 · 92",
        "split serves 4.0 times as many requests",
    )
    assert idle[1:4] == ("20.0 KiB", "20.0 KiB", "at most split 1.00× or in-process 1.00×")
    assert application[:4] == ("crash · application", "0 of 160 users", "60 of 160 users", "–")
    assert master[-1] == "not compared: split has no master among its servers"
    assert redis[0] == "crash · redis"


def test_the_summary_names_questions_and_counts_no_wins(report: Report) -> None:
    assert report.summary() == (
        "split is ahead in hello, crash · application; equivalent: idle, crash · redis; "
        "not compared: crash · connections, crash · master."
    )


def test_the_summary_tells_one_opponent_after_the_other(report: Report) -> None:
    """Who reads of one side only does not take what it is ahead of for the other."""
    report.comparison.sides = [*SIDES, Side("WSGI", "", part="timed")]
    report.comparison.runs += [made_up("WSGI", "hello", number) for number in (1, 2, 3, 4)]
    assert Report(report.comparison, {}, interrupted=False).summary() == (
        "Beside in-process: split is ahead in hello, crash · application; equivalent: crash · redis; "
        "not compared: crash · connections, crash · master. Beside WSGI: equivalent: hello."
    )


def test_the_page_says_what_each_side_is_and_what_was_done_to_it(report: Report) -> None:
    report.comparison.sides[0] = replace(SIDES[0], about="interfaces and workers")
    text = page(report)
    assert "split: interfaces and workers; run as asgictl start &lt;x&gt; (2 worker, 1 threads each" in text
    crash = text.partition('<section id="crash">')[2].partition("</section>")[0]
    rows = [re.findall(r"<td data-title=\"([^\"]+)\">([^<]*)", row) for row in crash.split("<tr>")]
    felt = {row[0][1]: [figure for _, figure in row[1:]] for row in rows if row and row[0][0] == "done in each round"}
    assert felt["kill -9 of a worker"] == ["60", "12", "8", "250 ms"], "of in-process: the last that was done so"
    assert felt["has no master among its servers"] == ["–"] * 4, "what was not done has not gone well"
    assert "40 users (half each: get a page" in crash
    assert "0.2 s, 200 a second together" in crash


def test_a_further_side_has_its_name_where_it_has_no_column(report: Report) -> None:
    comparison = report.comparison
    comparison.sides = [*SIDES, Side("gunicorn", "", part="timed")]
    comparison.runs += [made_up("gunicorn", "hello", number) for number in (1, 2, 3, 4)]
    found = Report(comparison, {}, interrupted=False)
    assert [row[0] for row in found.rows()][:2] == ["hello", "hello beside gunicorn"]
    crash = page(found).partition('<section id="crash">')[2]
    assert "in-process" in crash
    assert "gunicorn" not in crash.partition("</section>")[0], "it takes no part"
    assert [row[2] for row in found.rows()][:2] == ["252/s", "gunicorn: 1,002/s"]


def test_one_round_says_so_once(report: Report) -> None:
    report.comparison.runs = [run for run in report.comparison.runs if run.round == 1 and run.scenario == "hello"]
    one = Report(report.comparison, {}, interrupted=False)
    assert one.summary() == ONE_ROUND
    assert [row[-1] for row in one.rows()] == ["undecided: one round counts, and shows no spread"]


def test_the_table_says_how_it_was_measured(report: Report) -> None:
    text = io.StringIO()
    report.show(Console(file=text, width=200))
    for part in (
        "split serves 4.0 times as many requests", "the servers of a side on core 0, the load on core 1",
        "4 rounds of 4 s", "seed 77", "2 worker, 1 threads", "at most 40% of a core", "(first round): hello 3/5 worker",
        "keeps its rows in PostgreSQL",
    ):  # fmt: skip
        assert part in text.getvalue()


def test_the_json_holds_every_run(report: Report) -> None:
    document = json.loads(report.json())
    assert document["schema"] == 2
    assert len([run for scenario in document["scenarios"] for run in scenario["runs"]]) == 24
    assert document["scenarios"][0]["answers"][0]["winner"] == "split"
    assert document["scenarios"][0]["runs"][0]["connections"] == {"worker": [3, 5]}
    assert {"seed", "cpu", "revision", "versions", "complaints"} <= document.keys()


def test_a_curve_stands_alone(report: Report) -> None:
    comparison = report.comparison
    comparison.runs = []
    curve = Curve(comparison, SCENARIOS["hello"], 0.1)
    curve.climbs = {side.name: Climb([made_up(side.name, "hello", n) for n in (1, 2)], 310.0, 350.0) for side in SIDES}
    alone = Report(comparison, {}, interrupted=False)
    text = page(alone, curve)
    assert text.count("<figure>") == 3
    assert "up to 310 requests a second with split, up to 310 requests a second with in-process" in text
    document = json.loads(alone.json(curve))
    assert document["curve"]["climbs"]["split"]["held"] == 310.0
    assert document["p99_limit_seconds"] == 0.1


def test_what_is_no_number_is_null_in_json() -> None:
    assert finite({"a": [math.nan, (math.inf, 1.5)], "b": "text"}) == {"a": [None, [None, 1.5]], "b": "text"}


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told(report: Report) -> None:
    text = page(report)
    assert "{{" not in text
    assert "asgictl start &lt;x&gt;" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text), "something is loaded"
    assert not re.search(r"#0[abc0]\d{4}|#01010[0-9]|#02020[0-9]|#03030[0-9]", text), "a colour that is not the page's"
    assert text.count("<figure>") == 5 + 4 + 5


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_shows(report: Report, browser: Browser, width: int, scheme: Any) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    loaded: list[str] = []
    tab.on("request", lambda request: loaded.append(request.url))
    tab.on("console", lambda message: loaded.append(message.text))
    tab.set_content(page(report))
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator("svg[role=img]").count() == 14
    cut = "[...document.querySelectorAll('td, th, p')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    assert tab.evaluate(f"{cut}.map(e => e.textContent)") == []
    assert tab.get_by_text("split serves 4.0 times as many requests").first.is_visible()
    assert [url for url in loaded if not url.startswith("data:")] == []
    tab.close()


def test_what_was_not_measured_on_every_side_is_left_out(report: Report) -> None:
    comparison = report.comparison
    comparison.runs = [run for run in comparison.runs if (run.side, run.scenario) != ("in-process", "idle")]
    comparison.failures = {"in-process": "no module"}
    cut = Report(comparison, {}, interrupted=True)
    assert [found.scenario.name for found in cut.findings] == ["hello", "crash"]
    assert cut.conditions()[-1].startswith("INTERRUPTED")
    assert "in-process DID NOT START: no module" in page(cut)


@pytest.mark.parametrize(("seconds", "text"), [(0.00012345, "0.123 ms"), (0.5, "500 ms"), (2.345, "2.35 s")])
def test_durations_have_three_figures(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
