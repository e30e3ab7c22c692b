"""make bench OPTIONS="--against REVISION": this tree and a revision of it, the two in turn, CPU by role.

Each has its own applications of benchmarks.applications; load, installed packages and Redis are the same.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from asgictl.loadtests.servers import Side
from benchmarks.by_role import Row, compare
from benchmarks.measuring import BROADCAST, UPLOAD, measure
from benchmarks.sides import in_turn, inprocess, split

ROOT = Path(__file__).resolve().parents[1]

OWN: dict[str, tuple[Side, int]] = {
    f"{mode}-{name}": (side(target, load), clients)
    for mode, side in (("split", split), ("inprocess", inprocess))
    for name, target, load, clients in (
        ("hello-1", "wsgi", "/", 1),
        ("hello-64", "wsgi", "/", 64),
        ("echo-20", "echo", "ws:/ws", 20),
        ("echo-200", "echo", "ws:/ws", 200),
        ("echo-async", "echo_async", "ws:/ws", 20),
        ("upload", "bodies", UPLOAD, 4),
        ("broadcast", "broadcast", BROADCAST, 1000),
    )
}


class NoRevisionError(Exception):
    """Git has no commit of that name here; the text is git's."""


def git(*arguments: str) -> str:
    """Run git in this tree; returns what it printed, raises NoRevisionError with its complaint."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoRevisionError(done.stderr.strip())
    return done.stdout.strip()


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """Check a revision out into a directory of its own, until the end. Raises NoRevisionError."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    with TemporaryDirectory(prefix="ab-tree-", dir="/tmp") as directory:
        tree = Path(directory).resolve() / "then"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def against(revision: str, names: list[str], rounds: int, seconds: float) -> None:
    """Measure sides of OWN from this tree and from a revision in turn, and print a table. Raises NoRevisionError."""
    with tree_of(revision) as then:
        print(f"now: {ROOT}, with what is not committed · then: {git('log', '-1', '--format=%h %s', revision)}")
        print(f"{'':<22}{'now':>24}{'then':>24}{'ratio':>7}  CPU µs each: medians (least–most)")
        for name in names or OWN:
            side, clients = OWN[name]
            trees = replace(side, tree=ROOT), replace(side, tree=then)
            samples = in_turn(rounds, partial(measure, seconds=seconds, clients=clients), *trees)
            print(name)
            for row in compare(*samples):
                print(line(row), flush=True)


def line(row: Row) -> str:
    """Say what a row found; spreads that share no value say so."""
    ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
    return f"  {row.role:<20}{row.now!s:>24}{row.then!s:>24}{ratio:>7}{'  apart' if row.apart else ''}"
