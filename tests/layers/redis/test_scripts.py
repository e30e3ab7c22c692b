"""Scripts touch the keys that they declare, and no others: a cluster may move the others to another node meanwhile."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asgictl
from asgictl.layers.redis.keys import Keys
from tests.declared import Witness, witnessing
from tests.layers.redis.every_script import fill, runs
from tests.test_private_names import trees

PACKAGE = Path(asgictl.__file__).parent
CALL = re.compile(r"redis\.p?call\(")


@pytest.fixture(autouse=True)
def _declared() -> None:
    """Not here, where scripts do it on purpose."""


def every_script() -> Iterator[str]:
    """Return the text of every script of the package."""
    for path in PACKAGE.rglob("*.lua"):
        yield path.read_text()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CALL.search(node.value):
                yield node.value


def test_every_script_with_everything_to_do_touches_what_it_declares(url: str, name: str, client: Any) -> None:
    keys = Keys(name)
    client.flushall()
    with witnessing(url) as witness:
        for script in runs(keys, fill(client, keys)):
            client.flushall()
            run, expected = runs(keys, fill(client, keys))[script]
            answer = run(client)
            assert answer == expected or expected is None, script
    missing = [script for script in every_script() if not any(script in text for text in witness.texts)]
    assert missing == [], "scripts that nobody has run here: see every_script.py"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("redis.call('GET', KEYS[1]) redis.call('GET', 'other')", ["GET other"]),
        ("redis.pcall('LPUSH', KEYS[1], 'x') redis.pcall('ZCARD', 'absent')", ["ZCARD absent"]),
        ("redis.call('KEYS', '*')", ["KEYS *"]),
        ("redis.call('TIME') redis.call('EXISTS', KEYS[1], KEYS[1])", []),
    ],
)
def test_a_key_that_was_not_declared_is_noticed(script: str, told: list[str], url: str, client: Any) -> None:
    witness = Witness(url)
    client.eval(script, 1, "declared")
    assert witness.undeclared() == told
    witness.close()
