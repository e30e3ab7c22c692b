"""make bench: split against what people run today, the two sides in turn, medians of several rounds.

Prints the ratio of the medians, the spread of the ratios of neighbouring runs, the rates, and CPU microseconds for
each request, by role and all together: the median (the least and the most of the rounds). Servers run on all cores,
with the load beside them; nothing is pinned. A comparison that fails is told, and the rest goes on. Needs wrk.

--against REVISION measures asgictl alone: this tree and that revision of it, in turn, role by role. Spreads of equal
trees are apart by chance: in a third of figures with 2 rounds, a tenth with 3, one of 126 with 5.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from functools import partial
from math import inf
from subprocess import SubprocessError
from typing import NamedTuple

from asgictl.app.runtime import raise_file_limit
from asgictl.loadtests.servers import Side, SideError
from benchmarks.against import OWN, NoRevisionError, against
from benchmarks.by_role import describe, describe_ratios, ratio, ratio_of_all
from benchmarks.measuring import BROADCAST, measure
from benchmarks.sides import APPLICATIONS, gthread, in_turn, inprocess, split, uvicorn

GRANIAN = f"granian --interface wsgi --host 127.0.0.1 --port {{port}} --no-access-log {APPLICATIONS}:django_wsgi"


def layer(name: str) -> Side:
    """Channels 4's consumers on one uvicorn, with a channel layer of benchmarks.layers."""
    return replace(uvicorn(f"django_broadcast_{name}", BROADCAST), name=name)


class Comparison(NamedTuple):
    """Two sides. at_least: ratio of their rates; at_most: of their CPU, all roles together. clients: 0 is usual."""

    ours: Side
    theirs: Side
    at_least: float
    at_most: float = inf
    clients: int = 0


COMPARISONS = {
    "modes": Comparison(split("wsgi"), inprocess("wsgi"), 1.0, 1.40),
    "wsgi-a2wsgi": Comparison(split("wsgi"), uvicorn("wsgi_on_asgi"), 4.0),
    "wsgi-gthread": Comparison(split("wsgi"), gthread("wsgi"), 2.5),
    "wsgi-asgi": Comparison(split("wsgi"), uvicorn("asgi"), 0.60, 3.00),
    "wsgi-asgi-1": Comparison(split("wsgi"), uvicorn("asgi"), 0.20, 6.5, clients=1),
    "django-uvicorn": Comparison(split("django_wsgi"), uvicorn("django_asgi"), 10.0, 0.16),
    "django-gthread": Comparison(split("django_wsgi"), gthread("django_wsgi"), 3.0, 0.55),
    "django-granian": Comparison(split("django_wsgi"), Side("granian", GRANIAN), 0.9),
    "fastapi": Comparison(split("fastapi_hello"), uvicorn("fastapi_hello"), 0.35),
    "equal-budget": Comparison(split("django_wsgi", workers=2), gthread("django_wsgi", processes=3), 1.0),
    "echo-channels": Comparison(split("echo", "ws:/ws"), uvicorn("django_channels", "ws:/ws"), 4.0, 0.50),
    "echo-asgi": Comparison(split("echo", "ws:/ws"), uvicorn("asgi", "ws:/ws"), 0.45, 5.50),
    "broadcast-loop": Comparison(split("broadcast", BROADCAST), uvicorn("broadcast_loop", BROADCAST), 0.75, 1.00),
    "broadcast-channels": Comparison(
        split("broadcast", BROADCAST), uvicorn("django_broadcast_pubsub", BROADCAST), 10.0
    ),
    "layer-core": Comparison(layer("ours"), layer("core"), 3.0),
    "layer-pubsub": Comparison(layer("ours"), layer("pubsub"), 1.5),
    "layer-ceiling": Comparison(layer("memory"), layer("pubsub"), 1.5),
    "layer-core-bare": Comparison(layer("ours_bare"), layer("core_bare"), 3.0),
    "layer-pubsub-bare": Comparison(layer("ours_bare"), layer("pubsub_bare"), 1.5),
    "inprocess-fastapi": Comparison(inprocess("fastapi_hello"), uvicorn("fastapi_hello"), 0.87),
    "inprocess-a2wsgi": Comparison(inprocess("wsgi"), uvicorn("wsgi_on_asgi"), 1.25),
    "inprocess-asgi": Comparison(inprocess("wsgi"), uvicorn("asgi"), 0.42),
    "two-workers": Comparison(split("wsgi", "/sleep", workers=2), split("wsgi", "/sleep"), 1.9),
}
FAULTS = (RuntimeError, SideError, OSError, SubprocessError)  # of one comparison, behind which the others go on


def compared(name: str, rounds: int, seconds: float) -> None:
    """Measure a comparison and print what was found. Raises one of FAULTS."""
    ours, theirs, at_least, at_most, clients = COMPARISONS[name]
    samples = in_turn(rounds, partial(measure, seconds=seconds, clients=clients), ours, theirs)
    found = ratio(*([sample.rate for sample in taken] for taken in samples))
    cpu = ratio_of_all(*samples)
    print(
        f"{name:<18}{found.ratio:>7.2f}{found.low:>7.2f}–{found.high:<6.2f}{at_least:>9.2f}"
        f"{'  ' if found.ratio >= at_least else ' !'} {ours.name}: {found.ours:,.0f}/s"
        f" · {theirs.name}: {found.theirs:,.0f}/s\n"
        f"  CPU µs each: {' | '.join(map(describe, samples))} | ratio: {describe_ratios(*samples)}"
        f"{'' if at_most == inf else f' (at most {at_most:.2f})'}{' !' if cpu > at_most else ''}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(COMPARISONS)}; with --against of {', '.join(OWN)}; all without one",
    )
    parser.add_argument("--against", metavar="REVISION", help="compare this tree with a revision of git's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    there = OWN if arguments.against else COMPARISONS
    if unknown := set(arguments.names) - set(there):
        parser.error(f"no comparison {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    if not shutil.which("wrk"):
        parser.error("wrk was not found; apt-get install wrk")
    raise_file_limit()
    if arguments.against:
        try:
            against(arguments.against, arguments.names, arguments.rounds, arguments.seconds)
        except NoRevisionError as error:
            parser.error(f"--against {arguments.against}: {error}")
        return
    print(f"{'comparison':<18}{'ratio':>7}{'spread':>14}{'at least':>9}   rates and CPU µs each")
    failed = False
    for name in arguments.names or COMPARISONS:
        try:
            compared(name, arguments.rounds, arguments.seconds)
        except FAULTS as error:
            failed = True
            print(f"{name:<18} failed: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
