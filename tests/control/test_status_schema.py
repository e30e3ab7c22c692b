"""The contract of `status --json`."""

import json
from pathlib import Path

from asgictl.control.status_schema import schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "status.schema.json"


def test_the_published_schema_is_the_one_that_holds() -> None:
    """It is frozen: fields are only ever added. To publish one: python -m asgictl.control.status_schema > that file."""
    assert json.loads(PUBLISHED.read_text()) == schema()
