"""Lua that Redis runs: each file does one thing at once."""

from pathlib import Path


def script(name: str) -> str:
    """Return the text of a script."""
    return Path(__file__).with_name(f"{name}.lua").read_text()
