"""make profile ROLE=interface LOAD=split-hello-64: where a role's processor time goes while it is loaded, by py-spy.

Prints functions by the share of samples in which they ran themselves, and in which they or what they called ran. The
folded stacks are kept in build/, for a flame graph (speedscope, flamegraph.pl). py-spy reads other processes' memory:
as root, or where kernel.yama.ptrace_scope is 0.
"""

import argparse
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from asgictl.loadtests.servers import serving
from asgictl.loadtests.usage import Usage
from benchmarks.against import OWN
from benchmarks.by_role import ROLES
from benchmarks.measuring import drive

RATE = 500  # samples a second
SHOWN = 25  # functions
WARM_SECONDS, MARGIN_SECONDS = 1.0, 2.0  # the load begins before py-spy and goes on behind it
WAITING = ("readiness", "_push")  # threads that only wait, by a word of their stacks


def shares(stacks: Iterable[str]) -> tuple[Counter[str], Counter[str], int]:
    """Count samples of folded stacks, "frame;frame count": each function's own, those that it is in, and all."""
    own, within, all_samples = Counter[str](), Counter[str](), 0
    for line in stacks:
        stack, _, samples = line.rstrip().rpartition(" ")
        if any(word in stack for word in WAITING):
            continue
        functions = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        all_samples += int(samples)
        own[functions[-1]] += int(samples)
        for function in set(functions):
            within[function] += int(samples)
    return own, within, all_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("load", choices=OWN)
    parser.add_argument("--seconds", type=float, default=6)
    arguments = parser.parse_args()
    side, clients = OWN[arguments.load]
    kept = Path("build") / f"profile-{arguments.role}-{arguments.load}.txt"
    kept.parent.mkdir(exist_ok=True)
    with serving(side) as server:
        usage = Usage(server.runtime, "controller")
        usage.sample()
        if not (pids := usage.pids.get(arguments.role)):
            parser.error(f"{arguments.load} has no {arguments.role}; it has {', '.join(usage.pids)}")
        seconds = arguments.seconds + WARM_SECONDS + MARGIN_SECONDS
        load = threading.Thread(target=drive, args=(server.url, side.load, seconds, clients))
        load.start()
        time.sleep(WARM_SECONDS)
        options = [
            "--duration",
            f"{arguments.seconds:.0f}",
            "--rate",
            str(RATE),
            "--format",
            "raw",
            "--output",
            str(kept),
        ]
        subprocess.run(["py-spy", "record", "--pid", str(max(pids)), *options], check=True, stdout=subprocess.DEVNULL)
        load.join()
    own, within, samples = shares(kept.read_text().splitlines())
    for title, counts in (("own", own), ("with what it calls", within)):
        print(f"{title}, of {samples} samples:")
        for function, count in counts.most_common(SHOWN):
            print(f"{100 * count / samples:6.1f}%  {function}")
    print(f"folded stacks: {kept}")


if __name__ == "__main__":
    main()
