"""The inputs that are kept: one a file, as raw bytes."""

import hashlib
from pathlib import Path

DIRECTORY = Path(__file__).parent / "corpus"


def load(kind: str) -> dict[str, bytes]:
    """Return the inputs of a kind, by their names."""
    return {file.name: file.read_bytes() for file in sorted((DIRECTORY / kind).iterdir())}


def save(kind: str, data: bytes) -> Path:
    """Keep an input that failed."""
    file = DIRECTORY / kind / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    return file
