"""make bench: split against what people run today, the two sides in turn, medians of several rounds.

Prints the ratio of the medians, the spread of the ratios of neighbouring runs, the rates, and CPU microseconds for
each request with all processes of a side added, Redis's included. Needs wrk.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from asgictl.loadtests.servers import Side, serving
from asgictl.loadtests.usage import Usage
from asgictl.loadtests.verdicts import judge
from benchmarks.sides import APPLICATIONS, gthread, split, uvicorn

WARM_SECONDS = 2  # in which even the slowest tell 1,000 sockets something
BROADCAST = "ws:/broadcast"  # to 1,000 sockets: what is counted are deliveries
GRANIAN = f"granian --interface wsgi --host 127.0.0.1 --port {{port}} --no-access-log {APPLICATIONS}:django_wsgi"


def layer(name: str) -> Side:
    """Channels 4's consumers on one uvicorn, with a channel layer of benchmarks.layers."""
    return replace(uvicorn(f"django_broadcast_{name}", BROADCAST), name=name)


class Sample(NamedTuple):
    """One run: requests or messages a second, and CPU microseconds for each, all processes of the side added."""

    rate: float
    cpu_microseconds: float


COMPARISONS: dict[str, tuple[Side, Side, float]] = {
    "modes": (
        split("wsgi"),
        Side(
            "asgictl in-process", f"asgictl start {APPLICATIONS}:wsgi --mode inprocess --workers 1 --bind {{bind}} -d"
        ),
        1.0,
    ),
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
    "two-workers": (split("wsgi", "/sleep", workers=2), split("wsgi", "/sleep"), 1.9),
}


def drive(url: str, load: str, seconds: float) -> float:
    """Return requests, echoes or deliveries a second; raises RuntimeError when any request failed."""
    if load.startswith("ws:"):
        client, clients = ("broadcast_client", 1000) if load == BROADCAST else ("echo_client", 20)
        address = url.replace("http", "ws") + load[3:]
        command = [sys.executable, "-m", f"benchmarks.{client}", address, str(clients), str(seconds)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    command = ["wrk", "-t1", "-c64", f"-d{seconds:.0f}s", url + load]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"requests failed:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not found:
        raise RuntimeError(f"wrk said no rate:\n{said}")
    return float(found[1])


def measure(side: Side, seconds: float) -> Sample:
    """Start a side, warm it up, measure it and stop it."""
    with serving(side) as server:
        usage = Usage(server.runtime, "server")
        drive(server.url, side.load, WARM_SECONDS)
        usage.sample()
        began = time.perf_counter()
        rate = drive(server.url, side.load, seconds)
        usage.sample()
        taken = rate * (time.perf_counter() - began)
        return Sample(rate, sum(usage.cpu(0, time.time()).values()) * 1e6 / taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPARISONS)}; all without one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(COMPARISONS):
        parser.error(f"no comparison {', '.join(sorted(unknown))}; there are {', '.join(COMPARISONS)}")
    if not shutil.which("wrk"):
        parser.error("wrk was not found; apt-get install wrk")
    print(f"{'comparison':<18}{'ratio':>7}{'spread':>14}{'at least':>9}   rates and CPU µs each")
    for name in arguments.names or COMPARISONS:
        ours, theirs, at_least = COMPARISONS[name]
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _ in range(arguments.rounds):
            for side, taken in zip((ours, theirs), samples, strict=True):
                taken.append(measure(side, arguments.seconds))
        found = judge(*([sample.rate for sample in taken] for taken in samples))
        cpu = [median(sample.cpu_microseconds for sample in taken) for taken in samples]
        print(
            f"{name:<18}{found.ratio:>7.2f}{found.low:>7.2f}–{found.high:<6.2f}{at_least:>9.2f}"
            f"{'  ' if found.ratio >= at_least else ' !'} {ours.name}: {found.ours:,.0f}/s {cpu[0]:.0f} µs"
            f" · {theirs.name}: {found.theirs:,.0f}/s {cpu[1]:.0f} µs",
            flush=True,
        )


if __name__ == "__main__":
    main()
