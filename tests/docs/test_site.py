"""The site is built strictly, with nothing from outside; links lead somewhere, on the site and where files are read."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

from tests.docs.page import PAGES, ROOT
from tools import reference, site

LOOSE = [ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
LOADED = r"""<(?:script|link|img|iframe|source)\b[^>]*\s(?:src|href|srcset)=["']?(?:https?:)?//[^>]*>"""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Zensical make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    titles = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", title).lower() for title in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in (*PAGES, *LOOSE) if page.exists()], ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"""(?:\]\(|srcset="|src=")([^)"\s]+)""", text):
        file, _, anchor = link.partition("#")
        if not re.match(r"https?:", link):
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}: {sorted(anchors(target))}"


def test_what_is_made_of_code_is_as_the_code_is() -> None:
    stale = [str(page.relative_to(ROOT)) for page in reference.refresh(writes=False)]
    assert not stale, "make docs makes them anew"


def test_a_page_that_the_menu_does_not_name_is_in_it_all_the_same() -> None:
    listed = [page for pages in site.menu().values() for page in pages]
    assert sorted([*listed, "index.md"]) == sorted(str(page.relative_to(site.DOCS)) for page in site.DOCS.rglob("*.md"))


def test_the_site_is_built_without_a_warning_and_takes_nothing_from_outside(monkeypatch: pytest.MonkeyPatch,
                                                                            tmp_path: Path) -> None:  # fmt: skip
    if importlib.util.find_spec("zensical") is None and not os.environ.get("CI"):
        pytest.skip("NOT RUN: Zensical is not here; make docs installs it")
    monkeypatch.setattr(site, "BUILT", tmp_path / "docs")
    site.build()
    pages = list((tmp_path / "docs" / "site").rglob("*.html"))
    assert len(pages) > len(PAGES) - 1
    for page in pages:
        assert not re.findall(LOADED, page.read_text()), page.name
