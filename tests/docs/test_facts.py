"""What pages say of the code is as the code is, where no table is made of it."""

import re

import pytest

from asgictl.cli.start import start
from asgictl.config import EDGE_LIMITS, Limits
from asgictl.wire import error_responses
from tests.docs.page import ROOT

DOCS = ROOT / "docs"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
LIMITS = re.findall(r"`--(?:limit )?([\w-]+)`, ([\d,]+)(?: (\w+))?", (DOCS / "reference" / "limits.md").read_text())
SOURCES = [path for folder in ("interface", "worker", "asgictl") for path in (ROOT / folder).rglob("*.py")]
ENDS = "closed|answered|dropped|rejected|removed|skipped"
REASON = re.compile(rf'rejections\.add\(\s*"([^"{{]+)"|^(?:[A-Z_]+) = "([a-z][^"{{]* (?:{ENDS})\b[^"{{]*)"', re.M)


@pytest.mark.parametrize(("name", "number", "unit"), LIMITS)
def test_a_limit_is_as_the_page_has_it(name: str, number: str, unit: str) -> None:
    defaults = {str(each.name).replace("_", "-"): each.default for each in start.params}
    defaults |= {each: getattr(Limits(), each) for each in EDGE_LIMITS}
    assert defaults[name] == int(number.replace(",", "")) * UNITS.get(unit, 1)


def test_the_page_has_each_limit() -> None:
    assert {name for name, *_ in LIMITS} >= {*EDGE_LIMITS, "capacity", "max-body-bytes", "max-message-bytes"}


def test_each_reason_of_a_rejection_is_explained() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text()
    reasons = {found for path in SOURCES for both in REASON.findall(path.read_text()) for found in both if found}
    assert len(reasons) > 15
    for reason in reasons:
        whole = re.sub(r"^(requests answered \d+: ).*", r"\1...", reason)  # one row for each status
        assert reason in page or whole in page, reason


@pytest.mark.parametrize("status", [502, 503, 504])
def test_each_answer_of_ours_is_explained_by_its_text(status: int) -> None:
    source = (ROOT / "asgictl" / "wire" / "error_responses.py").read_text()
    names = re.findall(rf'^([A-Z_]+) = ".*"  # {status}$', source, re.M)
    assert names
    page = (DOCS / "troubleshooting.md").read_text()
    for name in names:
        assert f"`{getattr(error_responses, name)}`" in page
