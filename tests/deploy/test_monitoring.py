"""Rules, dashboard and scaling ask Prometheus for what /metrics has."""

import json
import re
from types import SimpleNamespace
from typing import Any

from asgictl.control.admin import Admin
from asgictl.control.channel_depths import Channel
from asgictl.telemetry.metrics import Figures
from tests.deploy.manifests import DEPLOY, expressions, run, tool

PROMETHEUS = {"job", "instance", "le"}  # labels that Prometheus adds, or that a histogram has


def exported() -> dict[str, set[str]]:
    """Return the labels of each series that a controller exports, by its name."""
    figures = Figures(requests={200: 1}, rejections={"reason": 1})
    figures.answer(200, 0.2, 0.1)
    figures.turn(0.2, 0.1)
    known: Any = SimpleNamespace(
        who=lambda: {1: {"role": "worker", "process": "worker-00", "threads": 1}},
        history=SimpleNamespace(latest=lambda: {1: figures}),
        moves=lambda: {"interface-00": dict.fromkeys(("moved", "refused", "overdue"), 0)},
        channels={"http.request": Channel(0, 0, 0.0, 0)},
    )
    collector: Any = SimpleNamespace(_controller=known)  # Admin's constructor is about who may ask
    samples = [sample for family in Admin.collect(collector) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def test_each_query_names_series_and_labels_that_exist() -> None:
    series = exported()
    assert len(series) > 20
    seen = set()
    for expression in expressions():
        names = set(re.findall(r"asgictl_\w+", expression))
        assert names <= series.keys(), expression
        labels = set().union(*(series[name] for name in names)) | PROMETHEUS
        named = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        named += [
            each for matchers in re.findall(r"\{(.*?)\}", expression) for each in re.findall(r"(\w+)[=!]", matchers)
        ]
        assert {word for each in named for word in re.findall(r"\w+", each)} <= labels, expression
        seen |= names
    assert len(seen) > 15


def test_promtool_takes_every_query_and_the_alerts_fire(tmp_path: Any) -> None:
    promtool = tool("promtool")
    run(promtool, "check", "rules", DEPLOY / "prometheus" / "alerts.yaml")
    run(promtool, "test", "rules", DEPLOY / "prometheus" / "alerts.test.yaml")
    rules = [{"record": f"query_{number}", "expr": each} for number, each in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    run(promtool, "check", "rules", tmp_path / "rules.yaml")


def test_panels_lie_beside_each_other() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
