"""make bench: split against what people run today, the two sides in turn, medians of several rounds.

Prints the ratio of the medians, the spread of the ratios of neighbouring runs, the rates, and CPU microseconds for
each request, by role and all together: the median (the least and the most of the rounds). Needs wrk.

--against REVISION measures asgictl alone: this tree and that revision of it, in turn, role by role. Spreads of equal
trees are apart by chance: in a third of figures with 2 rounds, a tenth with 3, one of 126 with 5.
"""

import argparse
import shutil
from dataclasses import replace

from asgictl.app.runtime import raise_file_limit
from asgictl.loadtests.servers import Side
from asgictl.loadtests.verdicts import judge
from benchmarks.against import OWN, NoRevisionError, against
from benchmarks.by_role import describe, describe_ratios
from benchmarks.measuring import BROADCAST, measure
from benchmarks.sides import APPLICATIONS, gthread, in_turn, inprocess, split, uvicorn

GRANIAN = f"granian --interface wsgi --host 127.0.0.1 --port {{port}} --no-access-log {APPLICATIONS}:django_wsgi"


def layer(name: str) -> Side:
    """Channels 4's consumers on one uvicorn, with a channel layer of benchmarks.layers."""
    return replace(uvicorn(f"django_broadcast_{name}", BROADCAST), name=name)


COMPARISONS: dict[str, tuple[Side, Side, float]] = {
    "modes": (split("wsgi"), inprocess("wsgi"), 1.0),
    "wsgi-a2wsgi": (split("wsgi"), uvicorn("wsgi_on_asgi"), 4.0),
    "wsgi-gthread": (split("wsgi"), gthread("wsgi"), 2.5),
    "wsgi-asgi": (split("wsgi"), uvicorn("asgi"), 0.60),
    "django-uvicorn": (split("django_wsgi"), uvicorn("django_asgi"), 10.0),
    "django-gthread": (split("django_wsgi"), gthread("django_wsgi"), 3.0),
    "django-granian": (split("django_wsgi"), Side("granian", GRANIAN), 0.9),
    "fastapi": (split("fastapi_hello"), uvicorn("fastapi_hello"), 0.35),
    "equal-budget": (split("django_wsgi", workers=2), gthread("django_wsgi", processes=3), 1.0),
    "echo-channels": (split("echo", "ws:/ws"), uvicorn("django_channels", "ws:/ws"), 4.0),
    "echo-asgi": (split("echo", "ws:/ws"), uvicorn("asgi", "ws:/ws"), 0.45),
    "broadcast-loop": (split("broadcast", BROADCAST), uvicorn("broadcast_loop", BROADCAST), 0.75),
    "broadcast-channels": (split("broadcast", BROADCAST), uvicorn("django_broadcast_pubsub", BROADCAST), 10.0),
    "layer-core": (layer("ours"), layer("core"), 3.0),
    "layer-pubsub": (layer("ours"), layer("pubsub"), 1.5),
    "layer-ceiling": (layer("memory"), layer("pubsub"), 1.5),
    "layer-core-bare": (layer("ours_bare"), layer("core_bare"), 3.0),
    "layer-pubsub-bare": (layer("ours_bare"), layer("pubsub_bare"), 1.5),
    "inprocess-fastapi": (inprocess("fastapi_hello"), uvicorn("fastapi_hello"), 0.87),
    "inprocess-a2wsgi": (inprocess("wsgi"), uvicorn("wsgi_on_asgi"), 1.25),
    "inprocess-asgi": (inprocess("wsgi"), uvicorn("asgi"), 0.42),
    "two-workers": (split("wsgi", "/sleep", workers=2), split("wsgi", "/sleep"), 1.9),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(COMPARISONS)}; with --against of {', '.join(OWN)}; all without one",
    )
    parser.add_argument("--against", metavar="REVISION", help="compare this tree with a revision of git's")
    parser.add_argument("--rounds", type=int, default=3)
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
    for name in arguments.names or COMPARISONS:
        ours, theirs, at_least = COMPARISONS[name]
        samples = in_turn(arguments.rounds, lambda side: measure(side, arguments.seconds), ours, theirs)
        found = judge(*([sample.rate for sample in taken] for taken in samples))
        print(
            f"{name:<18}{found.ratio:>7.2f}{found.low:>7.2f}–{found.high:<6.2f}{at_least:>9.2f}"
            f"{'  ' if found.ratio >= at_least else ' !'} {ours.name}: {found.ours:,.0f}/s"
            f" · {theirs.name}: {found.theirs:,.0f}/s\n"
            f"  CPU µs each: {' | '.join(map(describe, samples))} | ratio: {describe_ratios(*samples)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
