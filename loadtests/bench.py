"""make bench: split against what people run today, the two sides in turn, medians of several rounds.

Prints the ratio of the medians, the spread of the ratios of neighbouring runs, the rates, and CPU microseconds for
each request with all processes of a side added, Redis's included. Needs wrk.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from loadtests.servers import APPLICATIONS, MARK, Side, serving, split, uvicorn
from loadtests.verdicts import Sample, judge

TICKS = os.sysconf("SC_CLK_TCK")


def gthread(target: str, *, processes: int = 1) -> Side:
    name = f"gunicorn gthread, {processes} process{'es' if processes > 1 else ''}"
    options = "-k gthread --threads 4 --no-control-socket --log-level warning"
    return Side(name, f"gunicorn {APPLICATIONS}:{target} -b {{bind}} -w {processes} {options}")


GRANIAN = f"granian --interface wsgi --host 127.0.0.1 --port {{port}} --no-access-log {APPLICATIONS}:django_wsgi"
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
    "two-workers": (split("wsgi", "/sleep", workers=2), split("wsgi", "/sleep"), 1.9),
}


def cpu_seconds() -> float:
    """Return what all processes that we started have used; ended ones count with their parents."""
    used = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if MARK.encode() in (entry / "environ").read_bytes():
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    used += sum(map(int, fields[11:15]))
            except OSError:
                continue
    return used / TICKS


def drive(url: str, load: str, seconds: float) -> float:
    """Return requests or echoes a second; raises RuntimeError when any request failed."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}  # the generator is not the side
    if load.startswith("ws:"):
        command = [
            sys.executable,
            "-m",
            "loadtests.echo_client",
            url.replace("http", "ws") + load[3:],
            "20",
            str(seconds),
        ]
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    command = ["wrk", "-t1", "-c64", f"-d{seconds:.0f}s", url + load]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"requests failed:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not found:
        raise RuntimeError(f"wrk said no rate:\n{said}")
    return float(found[1])


def measure(side: Side, seconds: float) -> Sample:
    """Start a side, warm it up, measure it and stop it."""
    with serving(side) as server:
        drive(server.url, side.load, 1)
        before, began = cpu_seconds(), time.perf_counter()
        rate = drive(server.url, side.load, seconds)
        return Sample(rate, (cpu_seconds() - before) * 1e6 / (rate * (time.perf_counter() - began)))


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
    print(f"{'comparison':<16}{'ratio':>7}{'spread':>14}{'at least':>9}   rates and CPU µs each")
    for name in arguments.names or COMPARISONS:
        ours, theirs, at_least = COMPARISONS[name]
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _ in range(arguments.rounds):
            for side, taken in zip((ours, theirs), samples, strict=True):
                taken.append(measure(side, arguments.seconds))
        found = judge(*samples, at_least)
        print(
            f"{name:<16}{found.ratio:>7.2f}{found.low:>7.2f}–{found.high:<6.2f}{at_least:>9.2f}"
            f"{'  ' if found.met else ' !'} {ours.name}: {found.rates[0]:,.0f}/s {found.cpu_microseconds[0]:.0f} µs"
            f" · {theirs.name}: {found.rates[1]:,.0f}/s {found.cpu_microseconds[1]:.0f} µs",
            flush=True,
        )


if __name__ == "__main__":
    main()
