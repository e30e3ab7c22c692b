"""What make compare writes into pages: of a report that was made up."""

from pathlib import Path
from typing import Any

from benchmarks.compared import COMPARED, LABELS, MARKS, README, figures, put

ROWS = [[question, "10/s", "5/s", "", "", ""] for question in LABELS]
DOCUMENT: dict[str, Any] = {
    "sides": [{"name": "split"}, {"name": "in-process"}, {"name": "WSGI"}],
    "rows": [
        *ROWS,
        ["crash · master", "–", "–", "", "", ""],
        ["django-view beside WSGI", "10/s", "WSGI: 9/s", "", "", ""],
    ],
}


def test_each_side_has_a_column_of_figures() -> None:
    lines = figures(DOCUMENT).splitlines()
    assert lines[0] == "| Django on one core | split | in-process | WSGI |"
    assert lines[2] == f"| {LABELS['django-view']} | 10/s | 5/s | 9/s |"
    assert lines[3:] == [f"| {label} | 10/s | 5/s | – |" for label in list(LABELS.values())[1:]]


def test_the_pages_have_the_places() -> None:
    pages = (README, *(each.page for each in COMPARED.values()))
    assert [[page.read_text().count(mark) for mark in MARKS] for page in pages] == [[1, 1]] * 3


def test_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}\nbehind\n")
    for _ in range(2):
        put(page, "new\n")
    assert page.read_text() == f"before\n{MARKS[0]}new\n{MARKS[1]}\nbehind\n"
