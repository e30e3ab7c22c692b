"""The report of a comparison that was made up: the table, report.json, report.html."""

import io
import json
import math
import re
from typing import Any

import pytest
from playwright.sync_api import Browser
from rich.console import Console

from asgictl.loadtests.comparison import Comparison
from asgictl.loadtests.page import page
from asgictl.loadtests.report import Report, milliseconds
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Side
from asgictl.loadtests.verdicts import Run

SIDES = [Side("split", "asgictl start <x>"), Side("in-process", "asgictl start --mode inprocess")]


def made_up(side: str, scenario: str, number: int, **more: Any) -> Run:
    usual: dict[str, Any] = {
        "rate": 1000.0 + number,
        "seconds": [(1000.0, 0, 0.001, 0.01)] * 4,
        "percentiles": [0.001 * 2**step for step in range(9)],
        "cpu": {"worker": 80.0, "redis": 12.5},
        "memory": {"worker": 75.0, "redis": 5.0},
        "generator": 0.4,
    }
    return Run(side, scenario, number, **(usual | more))


@pytest.fixture
def report() -> Report:
    runs = [
        made_up(side.name, scenario, number, **more)
        for number in (1, 2, 3)
        for side, slow in zip(SIDES, (1, 4), strict=True)
        for scenario, more in (
            ("hello", {"rate": 1000.0 / slow + number}),
            ("idle", {"percentiles": [], "seconds": [], "cpu": {}, "kib": 20.0}),
            ("crash", {"event_at": 2.0, "closed": 5 * (slow - 1)}),
        )
    ]
    scenarios = [SCENARIOS[name] for name in ("hello", "idle", "crash")]
    facts = {side.name: {"processes": {"worker": 2}, "threads": 1} for side in SIDES}
    comparison = Comparison(SIDES, scenarios, 3, 4.0, [0], [1], runs=runs, facts=facts)
    return Report(comparison, {"target": "app:app"}, interrupted=False)


def test_a_row_has_both_figures_the_spread_and_the_verdict(report: Report) -> None:
    hello, idle, crash = report.rows()
    assert hello == (
        "hello",
        "1,002/s",
        "252/s",
        "3.98 (3.96–3.99)",
        "92 · 92",
        "split serves 4.0 times as many requests",
    )
    assert idle[1:4] == ("20.0 KiB", "20.0 KiB", "1.00 (1.00–1.00)")
    assert crash[1:4] == ("0 lost", "15 lost", "–")
    assert report.summary() == "3 results: split is ahead in 2, 1 without a difference"


def test_the_table_says_how_it_was_measured(report: Report) -> None:
    text = io.StringIO()
    report.show(Console(file=text, width=200))
    for part in ("servers on 0, load on 1", "3 rounds of 4 s", "2 worker, 1 threads", "at most 40% of a core"):
        assert part in text.getvalue()


def test_the_json_holds_every_run(report: Report) -> None:
    document = json.loads(report.json())
    assert document["schema"] == 1
    assert len([run for scenario in document["scenarios"] for run in scenario["runs"]]) == 18
    assert document["scenarios"][0]["answers"][0]["winner"] == "split"
    assert not any(isinstance(value, float) and math.isnan(value) for value in document.values())


def test_the_page_needs_nothing_else_and_escapes_what_it_is_told(report: Report) -> None:
    text = page(report)
    assert "{{" not in text
    assert "asgictl start &lt;x&gt;" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text), "something is loaded"
    assert not re.search(r"#0[abc0]\d{4}|#01010[0-9]|#02020[0-9]|#03030[0-9]", text), "a colour that is not the page's"
    assert text.count("<figure>") == 5 + 1 + 5


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_shows(report: Report, browser: Browser, width: int, scheme: Any) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    loaded: list[str] = []
    tab.on("request", lambda request: loaded.append(request.url))
    tab.on("console", lambda message: loaded.append(message.text))
    tab.set_content(page(report))
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.locator("svg[role=img]").count() == 11
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
