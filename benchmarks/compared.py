"""make compare: puts a comparison's table into its page.

WHAT=django: examples/django_site, into docs/explanation/balance.md, with a picture;
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

from playwright.sync_api import sync_playwright

from asgictl.loadtests.report import COLUMNS
from benchmarks.database import ROOT, SITE, prepared

PICTURE = ROOT / "docs" / "compare.png"
MARKS = "<!-- compare: made by make compare -->\n", "<!-- compare ends -->"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
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
    head, _, rest = compared.page.read_text().partition(MARKS[0])
    found = table(json.loads((folder / "report.json").read_text()))
    if name == "django":
        photograph(folder / "report.html")
        found = f"![The report of asgictl compare](../{PICTURE.name})\n\n{found}"
    compared.page.write_text(head + MARKS[0] + found + MARKS[1] + rest.partition(MARKS[1])[2])


if __name__ == "__main__":
    main(sys.argv[1:])
