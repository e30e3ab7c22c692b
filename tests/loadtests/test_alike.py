"""Whether sides are forms of one site: files that are served stand for sites."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asgictl.errors import ComparisonError
from asgictl.loadtests import alike
from asgictl.loadtests.alike import DEBUG, Said, check
from asgictl.loadtests.scenarios import SCENARIOS
from asgictl.loadtests.servers import Server, Side

HELLO = replace(SCENARIOS["hello"], path="/page.html")


def site(folder: Path, name: str, page: str) -> Side:
    (folder / name).mkdir()
    (folder / name / "page.html").write_text(page)
    return Side(name, f"{sys.executable} -m http.server {{port}} --bind 127.0.0.1 --directory {folder / name}")


def test_pages_that_differ_in_a_token_alone_are_alike(tmp_path: Path) -> None:
    one, other = (site(tmp_path, name, f"<p>{name * 40}</p>") for name in ("a", "b"))
    check([one, other], [HELLO])


def test_sides_that_answer_otherwise_are_refused(tmp_path: Path) -> None:
    one, other = site(tmp_path, "one", "<p>a page</p>"), site(tmp_path, "other", "<p>another page</p>")
    with pytest.raises(ComparisonError, match=r"one answers 200 text/html, 13 bytes, other 200 text/html, 19 bytes"):
        check([one, other], [HELLO])


def test_a_side_with_debug_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_server: Server, _path: str) -> Said:
        return Said(404, "text/html", b"<code>" + DEBUG + b"</code>")

    monkeypatch.setattr(alike, "ask", ask)
    with pytest.raises(ComparisonError, match="one runs with DEBUG on"):
        check([site(tmp_path, "one", "")], [HELLO])
