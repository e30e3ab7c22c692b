"""make compare: puts a comparison's table into its page.

WHAT=django: examples/django_site, into docs/explanation/balance.md, with a picture, and its figures into README;
on PostgreSQL where that is at hand.
WHAT=demo: the demo, into docs/compare.md.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from asgictl.loadtests.report import COLUMNS
from benchmarks.database import ROOT, SITE, prepared

README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "compare.png"
MARKS = "<!-- compare: made by make compare -->\n", "<!-- compare ends -->"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
LABELS = {  # README's rows, in this order
    "django-view": "pages, each a query and a template",
    "django-write": "forms that are saved",
    "django-socket": "messages saved, and sent to a room of four",
    "django-mixed": "pages beside slow reports: the slowest 1%",
    "deploy": "a deploy is noticed by",
    "crash · application": "the death of a process that runs the application, by",
    "crash · connections": "of one that holds connections, by",
    "crash · redis": "of Redis, by",
    "noisy": "a handler that holds the GIL for 2 s, by",
}
FORMS = ("--split", "asgictl_app:app", "--inprocess", "mysite.asgi:application", "--control", "asgictl_app:app")


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared: in a directory, with these arguments, and the page that shows what was found."""

    directory: Path
    arguments: tuple[str, ...]
    page: Path


COMPARED = {
    "django": Compared(SITE, (*FORMS, "--minutes", "20"), ROOT / "docs" / "explanation" / "balance.md"),
    "demo": Compared(ROOT, (), ROOT / "docs" / "compare.md"),
}


def table(document: dict[str, object]) -> str:
    """Return the rows as Markdown, and what they were measured with."""
    first, other, *_ = (side["name"] for side in document["sides"])  # type: ignore[attr-defined]
    titles = [{"first": first, "other": other}.get(title, title) for title in COLUMNS]
    rows = [titles, ["---"] * len(titles), *document["rows"]]  # type: ignore[misc]
    lines = ["| " + " | ".join(str(cell).replace("\n", "<br>") for cell in row) + " |" for row in rows]
    cores, settings = document["cores"], document["settings"]
    measured = (
        f"{document['made']}, Python {document['python']}, {cores['machine']} cores "  # type: ignore[index]
        f"(servers on {len(cores['servers'])}, load on {len(cores['load'])}), "  # type: ignore[index]
        f"up to {settings['rounds']} rounds of {settings['duration']:g} s"  # type: ignore[index]
        f"{', on ' + settings['database'] if settings['database'] else ''}. {document['summary']}"  # type: ignore[index]
    )
    return "\n".join([*lines, "", measured, ""])


def figures(document: dict[str, Any]) -> str:
    """Return the figures of LABELS as Markdown, a column for each side."""
    names = [side["name"] for side in document["sides"]]
    found: dict[str, dict[str, str]] = {}
    for title, first, other, *_ in document["rows"]:
        question, _, beside = title.partition(" beside ")
        found.setdefault(question, {names[0]: first})[beside or names[1]] = other.removeprefix(f"{beside}: ")
    rows = [(LABELS[question], *(found[question].get(name, "–") for name in names)) for question in LABELS]
    lines = [("Django on one core", *names), ("---",) * (len(names) + 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def put(page: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Put text between a page's marks."""
    head, _, rest = page.read_text().partition(marks[0])
    page.write_text(head + marks[0] + text + marks[1] + rest.partition(marks[1])[2])


def photograph(page: Path) -> None:
    """Take the report's overview and its first scenario."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        bottom = tab.locator("section").first.bounding_box() or {"y": 0, "height": 900}
        tab.screenshot(
            path=PICTURE,
            clip={"x": 0, "y": 0, "width": 1180, "height": bottom["y"] + bottom["height"] + 20},
            full_page=True,
        )
        browser.close()


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the page; what follows the name of what is compared goes to asgictl compare."""
    name, *options = arguments
    compared, folder = COMPARED[name], ROOT / "build" / f"compare-{name}"
    with ExitStack() as stack:
        environment = stack.enter_context(prepared()) if name == "django" else {}
        command = [
            sys.executable,
            "-P",
            "-m",
            "asgictl",
            "compare",
            *compared.arguments,
            *options,
            "--out",
            str(folder),
        ]
        subprocess.run(command, cwd=compared.directory, env=os.environ | environment, check=True)
    document = json.loads((folder / "report.json").read_text())
    found = table(document)
    if name == "django":
        photograph(folder / "report.html")
        found = f"![The report of asgictl compare](../{PICTURE.name})\n\n{found}"
        put(README, figures(document))
    put(compared.page, found)


if __name__ == "__main__":
    main(sys.argv[1:])
