"""python -m benchmarks.readme FOLDER: puts a comparison's table into the README, and its picture beside it."""

import json
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from asgictl.loadtests.report import COLUMNS

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "compare.png"
MARKS = "<!-- compare: made by make compare -->\n", "<!-- compare ends -->"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


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
        f"{settings['rounds']} rounds of {settings['duration']:g} s: {document['summary']}."  # type: ignore[index]
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


def main() -> None:
    folder = Path(sys.argv[1])
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text().partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    found = table(json.loads((folder / "report.json").read_text()))
    readme.write_text(head + MARKS[0] + found + MARKS[1] + tail)
    photograph(folder / "report.html")


if __name__ == "__main__":
    main()
