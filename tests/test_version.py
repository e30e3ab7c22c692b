"""The version stands in asgictl/__init__.py; CHANGELOG.md begins with it."""

import re
from pathlib import Path

from asgictl import __version__

ROOT = Path(__file__).parents[1]


def test_the_changelog_begins_with_the_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == __version__
