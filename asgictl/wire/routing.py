"""How paths match: patterns of WebSocket paths, prefixes of HTTP paths, and the pools of their channels."""

import re
from collections.abc import Mapping
from typing import TypeVar

from asgictl.errors import TargetError

T = TypeVar("T")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile "/ws/{room}": a parameter is one segment of the path, or {rest:path} all that is left.

    Raises TargetError for a malformed pattern.
    """
    if not pattern.startswith("/"):
        raise TargetError(f"path({pattern!r}): a path must start with /")
    parts = re.split(r"(\{\w+(?::path)?\})", pattern)
    source = "".join(_parameter(part[1:-1]) if index % 2 else re.escape(part) for index, part in enumerate(parts))
    try:
        return re.compile(source)
    except re.error as error:
        raise TargetError(f"path({pattern!r}): {error}") from None


def _parameter(spelled: str) -> str:
    name, _, rest = spelled.partition(":")
    return f"(?P<{name}>{'.*' if rest else '[^/]+'})"


def pool_suffix(pool: str) -> str:
    """Return what a pool adds to the names of its channels; raises TargetError for a name that is none."""
    if not isinstance(pool, str) or not re.fullmatch(r"[a-z0-9_-]{0,32}", pool):
        raise TargetError(f"pool={pool!r}: use up to 32 characters of a-z, 0-9, - and _")
    return pool and f".{pool}"


def is_below(path: str, prefix: str) -> bool:
    """Whether an HTTP path is a prefix, or lies below it."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def longest_first(prefixes: Mapping[str, T]) -> dict[str, T]:
    """Return a mapping of path prefixes in the order in which to try them."""
    return dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))
