"""python -m tools.site: refreshes what is made from code, and builds docs/ into build/docs/site.

docs/index.md is the menu: its headings are sections, its links pages. A page that it does not name stands behind the
others of its folder's section, one outside of the folders behind the guides, so that a new page needs no line there.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = ROOT / "build" / "docs"
SHOWN = ("deploy",)  # folders beside docs/ whose files pages link to
# Nothing comes from outside: no font, no script, no link to the generator.
SETTINGS = """
[project]
site_name = "asgictl"
site_description = "One Python web application, split across processes or in-process"
use_directory_urls = false
nav = {nav}

[project.theme]
font = false
features = ["content.code.copy", "navigation.sections", "navigation.top", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"

[project.extra]
generator = false
"""


def menu() -> dict[str, list[str]]:
    """Return the pages of each section, as docs/index.md has them, and those that it does not name."""
    sections: dict[str, list[str]] = {}
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (DOCS / "index.md").read_text(), re.M | re.S):
        sections[heading] = re.findall(r"^- \[.*?\]\(([\w/.-]+\.md)\)", body, re.M)
    named = {page for pages in sections.values() for page in pages}
    for page in sorted(str(each.relative_to(DOCS)) for each in DOCS.rglob("*.md")):
        if page not in named | {"index.md"}:
            sections[(page.rpartition("/")[0] or "guides").capitalize()].append(page)
    return sections


def build() -> None:
    """Build the site. Raises CalledProcessError for a dead link or anchor, or anything else that Zensical warns of."""
    shutil.rmtree(BUILT, ignore_errors=True)
    shutil.copytree(DOCS, BUILT / "docs")
    for folder in SHOWN:
        shutil.copytree(ROOT / folder, BUILT / "docs" / folder)
    for page in (BUILT / "docs").rglob("*.md"):  # there, they lie beside the pages
        page.write_text(re.sub(rf"\]\(\.\./((?:\.\./)*(?:{'|'.join(SHOWN)})/)", r"](\1", page.read_text()))
    # JSON is TOML here, but for the colon
    sections = (f'{{"{heading}" = {json.dumps(pages)}}}' for heading, pages in menu().items())
    (BUILT / "zensical.toml").write_text(SETTINGS.format(nav=f'["index.md", {", ".join(sections)}]'))
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=BUILT, check=True)


if __name__ == "__main__":
    for changed in reference.refresh():
        print(f"refreshed {changed.relative_to(ROOT)}")
    build()
    print(f"open {BUILT / 'site' / 'index.html'}, or with search: python3 -m http.server -d {BUILT / 'site'}")
